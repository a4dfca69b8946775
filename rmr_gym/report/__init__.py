"""Run folders read back and shown: tables, tests, charts, findings and pages; needs no torch."""

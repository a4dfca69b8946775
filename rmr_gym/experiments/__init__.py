"""Experiments: a folder each, with what is run (grid) and what is shown (report)."""

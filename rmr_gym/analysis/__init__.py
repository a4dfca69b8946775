"""Reading of finished runs: statistics, tables, figures, report. Imports neither torch nor envs."""

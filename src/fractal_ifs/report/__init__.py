"""The report of sweeps: a table of whatever varied, figures, one page; beside the paper its tables, and verdicts."""

"""The results of a sweep beside the paper: tables, figures, verdicts, one page. ``python -m fractal_ifs.report``."""

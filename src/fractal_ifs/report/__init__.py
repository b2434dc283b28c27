"""A sweep beside the paper: tables, figures, verdicts, one page. ``python -m fractal_ifs.report`` is its door."""

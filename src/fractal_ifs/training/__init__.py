"""Sets of runs under Lightning, their loggers, and the signals that end them."""

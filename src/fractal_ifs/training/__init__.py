"""Trains sets of runs with Lightning, logs them to W&B, and ends them in good order on a signal."""

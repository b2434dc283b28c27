"""Trains sets of runs, round by round or with Lightning, logs them to W&B, and ends them in good order on a signal."""

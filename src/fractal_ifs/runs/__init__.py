"""One run: its state, what it leaves on disk, who may train it."""

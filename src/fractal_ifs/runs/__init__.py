"""One run: its state in memory, its files on disk, and the lock on its directory."""

"""Finished runs as rows and cells, and the table in which they are kept."""

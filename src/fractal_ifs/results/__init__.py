"""Finished runs as rows and cells of tables, and the table in which they are kept."""

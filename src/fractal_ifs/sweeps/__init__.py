"""The jobs of a sweep, on this machine or in Slurm. Finished ones are skipped, and a table is shown at the end."""

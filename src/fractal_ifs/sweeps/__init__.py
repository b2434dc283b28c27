"""The jobs of a sweep: on this machine or in Slurm, skipped where finished, with one table at the end."""

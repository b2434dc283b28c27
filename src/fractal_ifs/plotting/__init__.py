"""Pictures of distributions and of what networks have learned. Blue is positive (K_n), orange is negative."""

"""What networks are trained on: points and images, their random streams, their Lightning DataModules."""

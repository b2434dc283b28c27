"""Training and test data: points and images, random streams, and Lightning DataModules."""

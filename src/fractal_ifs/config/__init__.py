"""What a run is asked to be: the keys of conf/, every check of them, and how Hydra composes them."""

"""What a run is asked to be: a dataclass per group of conf/, ``RunConfig`` of all, and how Hydra composes them."""

"""A run's configuration: one dataclass per group of conf/, ``RunConfig`` for all of them, and how Hydra composes it."""

"""Training from Python and notebooks."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from fractal_ifs.config.schema import Job, check_writable, compose
from fractal_ifs.training.rounds import train


def run(directory: str | Path | None = None, **keywords: Any) -> tuple[dict[str, Any], nn.Module]:
    """Train one network: ``run(fractal="vicsek", curve=4, width=20, steps=20_000, fractal__depth=6)``.

    Keywords are the keys of the command line (two underscores for a dot). With a ``directory`` the run leaves its
    record there and logs as ``logger`` says, else nothing is written. Returns the record (as in result.json) and the
    trained module.
    Raises ConfigError.
    """
    config: Any = OmegaConf.to_container(compose(**keywords), resolve=True)
    if directory is not None:
        check_writable(Path(directory))
    [outcome] = train([Job(config, None if directory is None else Path(directory))], threads=config["workers"])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome.record(), outcome.trained

"""Training from Python and notebooks."""

import re
from pathlib import Path
from typing import Any

from torch import nn

from fractal_ifs.config.compose import compose
from fractal_ifs.config.machine import check_writable
from fractal_ifs.config.run import Job
from fractal_ifs.errors import ConfigError
from fractal_ifs.networks.own import check_network
from fractal_ifs.runs.records import RunRecord
from fractal_ifs.training.train import train


def run(directory: str | Path | None = None, **keywords: Any) -> tuple[RunRecord, nn.Module]:
    """Train one network: ``run(fractal="vicsek", curve=4, width=20, steps=20_000, fractal__depth=6)``.

    Args:
        directory: where the run writes its record, and logs as ``logger`` says. None: nothing is written.
        keywords: the keys and groups of the command line, with two underscores for a dot, as ``data__train_size=1000``.
            Choices of your own are found with ``hydra__searchpath=["mine"]``.

    Returns the record, as in result.json, and the trained module. Raises ConfigError, or what the run failed with.
    """
    if isinstance(directory, str) and (key := re.match(r"([a-z_.]+)=", directory)):
        raise ConfigError(f"{directory}: would be a directory; keys are keywords, {key[1].replace('.', '__')}=...")
    config = compose(**keywords)
    check_network(config)
    if directory is not None:
        check_writable(Path(directory))
    [outcome] = train([Job(config, None if directory is None else Path(directory))], threads=config.workers)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome.record(), outcome.trained.eval()

"""``logger=trackio``: a Lightning logger for Trackio, a database of runs on this machine that needs no account."""

from __future__ import annotations

import importlib
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers.logger import Logger


class TrackioLogger(Logger):
    """A run's numbers in Trackio: ``trackio show --project fractal_ifs`` shows them.

    Args:
        save_dir: the run's directory, by whose name Trackio knows the run.
        project: Trackio's.
        name: none, as other loggers are given it.
        version: another one where a killed run goes on, which Trackio shows as another run of the same group.
    """

    def __init__(self, save_dir: str, project: str = "fractal_ifs", name: str = "", version: str = "trackio"):
        super().__init__()
        self.project, self.group = project, Path(save_dir).name
        _, dot, later = version.partition(".")
        self._name, self._version = f"{self.group}{dot}{later}", version
        self._run: Any = None

    @property
    def name(self) -> str:
        """Trackio's name of the run."""
        return self._name

    @property
    def version(self) -> str:
        """As given."""
        return self._version

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Begin the run, with the keys of its config."""
        self._run = self._run or self._begin(vars(params) if isinstance(params, Namespace) else dict(params))

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add numbers at a step."""
        self._run = self._run or self._begin({})
        self._run.log(metrics, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish()

    def _begin(self, config: dict[str, Any]) -> Any:
        trackio: Any = importlib.import_module("trackio")  # it may not be installed
        return trackio.init(self.project, self._name, self.group, config=config, embed=False)

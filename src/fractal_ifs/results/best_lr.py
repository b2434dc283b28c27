"""The learning rate that is best for each cell of a table of finished runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError
from fractal_ifs.results.cells import cells
from fractal_ifs.results.finished_runs import read
from fractal_ifs.results.rows import collect
from fractal_ifs.runs.records import keys_of


class BestLr:
    """For each cell (data, fractal, its depth, curve, depth, width) the learning rate that the report shows.

    Raises ConfigError where the table is none, or empty.
    """

    def __init__(self, path: Path):
        if not read(path):
            raise ConfigError(f"hydra.sweeper.best_lr={path}: holds no run; train some learning rates first")
        best, _ = cells(collect([path])[0])
        self._of_cell = {_cell(line): float(line["lr"]) for line in best.to_dict("records")}

    def of(self, config: RunConfig) -> float | None:
        """That of the cell of a config; None where it has no run."""
        return self._of_cell.get(_cell(keys_of(config)))


def _cell(keys: Mapping[str, Any]) -> tuple[Any, ...]:
    synthetic = keys["data"] == "fractal"
    where = (keys["fractal"], int(keys["fractal_depth"]), str(keys["curve"])) if synthetic else (None, None, None)
    return (keys["data"], *where, int(keys["depth"]), int(keys["width"]))

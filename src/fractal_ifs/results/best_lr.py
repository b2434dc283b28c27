"""The learning rate that is best for each cell of a table of finished runs."""

from pathlib import Path

from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.results import finished_runs
from fractal_ifs.results.cells import form_cells, results_of
from fractal_ifs.results.rows import CellKey, read_runs
from fractal_ifs.runs.records import keys_of


class BestLr:
    """For each cell (data, fractal, its depth, curve, depth, width), the learning rate that the report shows.

    Raises ConfigError where the file is no such table, or holds no run.
    """

    def __init__(self, path: Path):
        if not finished_runs.read(path, "hydra.sweeper.best_lr"):
            raise ConfigError(
                f"hydra.sweeper.best_lr={short(path, 200)}: holds no run; train some learning rates first"
            )
        best, _ = form_cells(read_runs([path])[0])
        self._of_cell = {cell.key: float(cell.lr) for cell in results_of(best)}

    def of(self, config: RunConfig) -> float | None:
        """The learning rate for the cell of a config. None where the table has no run of that cell."""
        return self._of_cell.get(CellKey.of(keys_of(config)))

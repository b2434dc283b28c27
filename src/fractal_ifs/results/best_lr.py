"""The learning rate that is best for each cell of a table of finished runs."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from fractal_ifs.config.run import RunConfig
from fractal_ifs.errors import ConfigError, counted, short
from fractal_ifs.results.cells import form_cells
from fractal_ifs.results.columns import CellKey
from fractal_ifs.results.protocol import setting_of
from fractal_ifs.results.rows import LEFT_OUT, read_runs
from fractal_ifs.runs.records import keys_of

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


class BestLr:
    """For each cell (data, fractal, its depth, curve, depth, width), the learning rate that the report shows.

    It is of runs with the setting that is asked for, such as ``data.train_size``, where the table has any. Else it is
    of the setting nearest to the paper's, as in the report, which ``tell`` tells.

    Raises ConfigError where the file is no such table, or has damaged lines, or holds no run.
    """

    def __init__(self, path: Path):
        try:
            if not path.is_file():
                raise ConfigError(f"{short(path, 200)}: holds no run; train some learning rates first")
            runs, notes = read_runs([path])
            if left_out := [note for note in notes if note.startswith(LEFT_OUT)]:
                raise ConfigError(left_out[0].removeprefix(LEFT_OUT))
        except ConfigError as error:
            raise ConfigError(f"hydra.sweeper.best_lr={error}") from None
        self._of_cell = _lrs(runs)
        self._of_setting = {str(setting): _lrs(some) for setting, some in runs.groupby("setting")}
        self._path = path
        self._asked, self._borrowed = set[CellKey](), set[CellKey]()

    def of(self, config: RunConfig) -> float | None:
        """The learning rate for the cell of a config. None where the table has no run of that cell."""
        key = CellKey.of(keys_of(config))
        self._asked.add(key)
        if (own := self._of_setting.get(setting_of(config).setting, {}).get(key)) is not None:
            return own
        if key in self._of_cell:
            self._borrowed.add(key)
        return self._of_cell.get(key)

    def tell(self) -> None:
        """Log of how many cells that were asked for the learning rate is of another setting."""
        if self._borrowed:
            log.info(
                "hydra.sweeper.best_lr=%s: in %d of %s no run has the setting of these jobs: their learning rates are "
                "of another, the first: %s",
                short(self._path, 200),
                len(self._borrowed),
                counted(len(self._asked), "cell"),
                min(map(str, self._borrowed)),
            )


def _lrs(runs: "pd.DataFrame") -> dict[CellKey, float]:
    return {key: float(cell.lr) for key, cell in form_cells(runs)[0].items()}

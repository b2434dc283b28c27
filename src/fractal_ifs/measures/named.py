"""Our measures by the names of ``config.measures``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fractal_ifs.measures.balance import balance
from fractal_ifs.measures.dead import dead
from fractal_ifs.measures.gradient import gradient
from fractal_ifs.measures.norms import norms
from fractal_ifs.measures.regions import regions
from fractal_ifs.measures.sets import OnSet, levels, train_acc, val_acc
from fractal_ifs.measures.snapshot import Snapshot
from fractal_ifs.runs.run import Run

ON_SETS: dict[str, Callable[[Run], Sequence[OnSet]]] = {"train_acc": train_acc, "val_acc": val_acc, "levels": levels}
OF_SNAPSHOTS: dict[str, Callable[[Snapshot], float | Mapping[str, float]]] = {
    "balance": balance,
    "gradient": gradient,
    "norms": norms,
    "dead": dead,
    "regions": regions,
}

"""The key ``measures``: what is measured at every evaluation besides the test set. Its functions are in that room.

A name of our own stands for one of those. A name with a dot is a function of the user's own, ``MODULE.FUNCTION``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from fractal_ifs.errors import ConfigError, short


class Fits(NamedTuple):
    """What a measure of ours goes with."""

    points: bool = False  # data=fractal alone
    network: str = "any"  # any, one of relus, or plain: a fully connected one of ReLUs


NAMES = {  # docs/measures.md says what each is
    "train_acc": Fits(),
    "val_acc": Fits(),
    "levels": Fits(points=True),
    "balance": Fits(points=True),
    "gradient": Fits(),
    "norms": Fits(),
    "dead": Fits(network="relus"),
    "regions": Fits(points=True, network="plain"),
}
TRAIN_POINTS = 10_000  # of train_acc; training points lie in random order, so the first are as good as any
ALLOWED = f"a list, each entry one of {', '.join(NAMES)}, or a function with its module, as mine.margin"


def is_own(name: str) -> bool:
    """Whether a name is that of a function of the user's own."""
    return "." in name


def check_names(names: Sequence[str]) -> None:
    """Raises ConfigError for a name that no measure has, and for one that is there twice."""
    columns: set[str] = set()
    for name in names:
        given = f"measures=[{short(name)}]"
        if is_own(name):
            if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name):
                raise ConfigError(f"{given}: must be a function with its module, as mine.margin")
        elif name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 3, 0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(NAMES)}"
            raise ConfigError(f"{given}: there is no such measure; {hint}")
        if (last := name.rpartition(".")[2]) in columns:
            raise ConfigError(f"{given}: must be there once, since {last} names its column")
        columns.add(last)


def check_fits(names: Sequence[str], data: Any, model: Any) -> None:
    """Raises ConfigError for a measure that says nothing of such data or of such a network.

    Args:
        data, model: the config groups.
    """
    for name in (name for name in names if name in NAMES):
        given, measure = f"measures=[{name}]", NAMES[name]
        if measure.points and data.name != "fractal":
            raise ConfigError(f"{given}: goes with data=fractal, not data={data.name}")
        if name == "val_acc" and not data.val_size:
            raise ConfigError(f"{given}: needs a validation set; give data.val_size, as data.val_size=5000")
        fits = {"any": True, "plain": model.varied is None, "relus": model.varied is None or model.name == "cnn"}
        if not fits[measure.network]:
            raise ConfigError(f"{given}: goes with a network of ReLUs whose form we know, not {model.varied}")

"""The paper's statements by name, and what each is checked on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.fractals.ifs import AffineIFS, depth_of
from fractal_ifs.fractals.numbers import number, whole
from fractal_ifs.theorems import (
    conjecture1,
    corollary1,
    corollary2,
    corollary3,
    theorem1,
    theorem2,
    theorem3,
    theorem4,
    theorem5,
)
from fractal_ifs.theorems.cube import CubeIFS
from fractal_ifs.theorems.fold import CANTOR
from fractal_ifs.theorems.learn import fastest
from fractal_ifs.theorems.problem import Check, Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Statement:
    """A statement of the paper as a program.

    `check` tries it on a problem, and raises ConfigError where that is outside of its hypotheses; `draw` makes its
    picture on the axes, from the problem and the checks made on it. `about` says which fractals it is about: "any",
    those on the "line", the "cantor" set of Section 4, or "random" ones: an experiment, as long as one wants it.
    """

    check: Callable[[Problem], list[Check]]
    draw: Callable[[Problem, list[Check], Axes], None] | None = None
    about: str = "any"


STATEMENTS = {
    "theorem1": Statement(theorem1.check, theorem1.draw),
    "corollary1": Statement(corollary1.check, corollary1.draw),
    "theorem2": Statement(theorem2.check, theorem2.draw),
    "theorem3": Statement(theorem3.check, theorem3.draw),
    "theorem4": Statement(theorem4.check, theorem4.draw, "line"),
    "theorem5": Statement(theorem5.check, theorem5.draw, "cantor"),
    "corollary2": Statement(corollary2.check, corollary2.draw, "cantor"),
    "corollary3": Statement(corollary3.check, about="cantor"),
    "conjecture1": Statement(conjecture1.check, conjecture1.draw, "random"),
}


def problem_of(name: str, keys: Mapping[str, Any], alone: bool) -> Problem:
    """What a statement is checked on: the fractal of conf/theory.yaml's keys, or the Cantor set where it is about that.

    `alone`: no other statement is asked for, so one on the line refuses a plane fractal; else it takes the Cantor set.
    Raises ConfigError for bad values.
    """
    about, settings = STATEMENTS[name].about, dict(keys.get(name) or {})
    n, ifs = depth_of(keys["fractal"]), CubeIFS.of(AffineIFS.from_config(keys["fractal"]))
    ifs = ifs.shrunk(number(keys["shrink"], "shrink"))
    curve = ApproximationCurve.from_config(keys["curve"])
    gamma = None if keys["margin"] is None else number(keys["margin"], "margin")
    if about == "cantor" or (about == "line" and ifs.d > 1 and not alone):
        ifs = CANTOR
    if about in ("cantor", "line"):
        n, gamma = whole(settings.get("n", n), f"{name}.n", 1), None
        if not curve.fits(n):  # one that is given level by level, for another depth
            curve = ApproximationCurve.load(str(settings["curves"][0]))
    points = whole(settings.get("points", keys["points"]), "points", 1)
    seed = whole(keys["seed"], "seed", 0)
    if about in ("cantor", "random"):  # they choose the margin themselves
        gamma = 0.0
    else:
        ifs.require_separated()
        curve.level_probabilities(n)
        gamma = ifs.margin(n, gamma)
    return Problem(ifs, n, gamma, curve, points, seed, settings, fastest())

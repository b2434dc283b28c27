"""The paper's statements by name, and what each is checked on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from fractal_ifs.config.keys import checked
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.fractals.cube import CubeIFS
from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.fractals.ifs import AffineIFS, depth_of
from fractal_ifs.fractals.named import names
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
from fractal_ifs.theorems.fold import CANTOR
from fractal_ifs.theorems.keys import MOST_CELLS, SECTIONS, Corollary1, LineSection, Section, Theorem4, Theory
from fractal_ifs.theorems.learn import fastest
from fractal_ifs.theorems.problem import Check, Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Statement:
    """A statement of the paper as a program, see `keys.Section` for what it says.

    `check` tries it on a problem, and raises ConfigError where that is outside of its hypotheses; `draw` makes its
    picture on the axes, from the problem and the checks made on it.
    """

    check: Callable[[Problem[Any]], list[Check]]
    draw: Callable[[Problem[Any], list[Check], Axes], None] | None = None


STATEMENTS = {
    "theorem1": Statement(theorem1.check, theorem1.draw),
    "corollary1": Statement(corollary1.check, corollary1.draw),
    "theorem2": Statement(theorem2.check, theorem2.draw),
    "theorem3": Statement(theorem3.check, theorem3.draw),
    "theorem4": Statement(theorem4.check, theorem4.draw),
    "theorem5": Statement(theorem5.check, theorem5.draw),
    "corollary2": Statement(corollary2.check, corollary2.draw),
    "corollary3": Statement(corollary3.check),
    "conjecture1": Statement(conjecture1.check, conjecture1.draw),
}


def problems(config: Mapping[str, Any], words: Sequence[str] = ()) -> tuple[Theory, list[tuple[str, Problem[Section]]]]:
    """The keys at the top, and what each statement asked for is checked on. Raises ConfigError for bad values.

    All sections are parsed, of statements that aren't asked for as well.

    Args:
        words: those that chose the config. One that no statement asked for reads is refused too: the checks would be
            of another fractal or curve than it says.
    """
    own = {name: kind for name, kind in SECTIONS.items() if fields(kind)}
    keys = Theory.parse({name: value for name, value in config.items() if name not in own})
    sections = {
        name: kind.parse(checked(name, config.get(name, {}), Mapping[str, Any], {})) for name, kind in own.items()
    }
    asked = {name: sections[name] if name in sections else SECTIONS[name]() for name in keys.statements}
    for word in words:
        _check_read(word, asked)
    return keys, [(name, problem_of(keys, settings, len(asked) == 1)) for name, settings in asked.items()]


def _check_read(word: str, asked: Mapping[str, Section]) -> None:
    """Raises ConfigError for a word of the command that none of these statements reads."""
    key = word.lstrip("+~").partition("=")[0]
    if (section := key.partition(".")[0]) in SECTIONS and section not in asked:
        raise ConfigError(f"{short(word)}: {section} isn't among the statements asked for, {', '.join(asked)}")
    why = {name: _why_unread(settings, key) for name, settings in asked.items()}
    if all(why.values()) and word != "fractal=cantor":  # which those about the Cantor set have anyway
        name, reason = next(iter(why.items()))
        none = "" if len(why) == 1 else f", and none of {', '.join(why)} does"
        raise ConfigError(f"{short(word)}: {name} doesn't read {key}{none}: {reason}")


def _why_unread(settings: Section, key: str) -> str | None:
    """Why a statement doesn't read a key, or one of its group. None: it does."""
    return next((why for unread, why in settings.unread.items() if f"{key}.".startswith(f"{unread}.")), None)


def problem_of(keys: Theory, settings: Section, alone: bool) -> Problem[Section]:
    """What a statement is checked on: the chosen fractal, or the Cantor set for a statement about that.

    `alone`: whether only this statement runs. If so, a statement on the line refuses a plane fractal, one map and too
    many cells; if not, it uses the Cantor set. Raises ConfigError for bad values.
    """
    n, ifs = depth_of(keys.fractal), CubeIFS.of(AffineIFS.from_config(keys.fractal)).shrunk(keys.shrink)
    curve, gamma = ApproximationCurve.from_config(keys.curve), keys.margin
    points = settings.points if isinstance(settings, Corollary1) else keys.points
    unfit = isinstance(settings, Theorem4) and (ifs.d > 1 or ifs.r == 1 or ifs.r**settings.n > MOST_CELLS)
    if settings.ABOUT == "cantor" or (unfit and not alone):
        ifs = CANTOR
    if settings.ABOUT == "line" and not alone:  # it has another depth, for which the margin of the others is too large
        gamma = None
    if isinstance(settings, LineSection):
        n = settings.n
        its_own = alone and "curve" not in settings.unread
        if not curve.fits(n) and settings.curve_names and not its_own:  # one given level by level, for another depth
            curve = ApproximationCurve.load(settings.curve_names[0])
        curve.level_probabilities(n)
    settings.check_for(ifs, n)
    if settings.ABOUT in ("cantor", "random"):  # they choose the margin themselves
        gamma = 0.0
    else:
        ifs.require_separated()
        curve.level_probabilities(n)
        gamma = ifs.margin(n, gamma, f"{settings.PREFIX}n" if isinstance(settings, LineSection) else "fractal.depth")
    if curve.fits(n) and _is_called_as_another(curve, n):
        curve.name = f"own {curve.name}"
    return Problem(ifs, n, gamma, curve, points, keys.seed, settings, fastest())


def _is_called_as_another(curve: ApproximationCurve, n: int) -> bool:
    """Whether another curve of ours has the name, as where ``curve=1 curve.degree=5`` changes a number of it."""
    if curve.name not in names("curve"):
        return False
    ours = ApproximationCurve.load(curve.name)
    return not ours.fits(n) or not np.array_equal(ours.P(n), curve.P(n))

"""The paper's statements by name, and what each is checked on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fractal_ifs.config.keys import A_SEED, checked, key, shown
from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.cube import CubeIFS
from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.fractals.ifs import AffineIFS, depth_of
from fractal_ifs.plotting.keys import Looks
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
from fractal_ifs.theorems.learn import fastest
from fractal_ifs.theorems.problem import Check, LineSection, Problem, Section
from fractal_ifs.theorems.theorem4 import MOST_CELLS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Statement:
    """A statement of the paper as a program.

    `check` tries it on a problem, and raises ConfigError where that is outside of its hypotheses; `draw` makes its
    picture on the axes, from the problem and the checks made on it. `about` says which fractals it is about: "any",
    those on the "line", the "cantor" set of Section 4, or "random" ones: an experiment, as long as one wants it.
    `settings` is the type of its section of conf/theory.yaml.
    """

    check: Callable[[Problem[Any]], list[Check]]
    draw: Callable[[Problem[Any], list[Check], Axes], None] | None = None
    about: str = "any"
    settings: type[Section] = Section


STATEMENTS = {
    "theorem1": Statement(theorem1.check, theorem1.draw),
    "corollary1": Statement(corollary1.check, corollary1.draw, settings=corollary1.Settings),
    "theorem2": Statement(theorem2.check, theorem2.draw, settings=theorem2.Settings),
    "theorem3": Statement(theorem3.check, theorem3.draw, settings=theorem3.Settings),
    "theorem4": Statement(theorem4.check, theorem4.draw, "line", theorem4.Settings),
    "theorem5": Statement(theorem5.check, theorem5.draw, "cantor", theorem5.Settings),
    "corollary2": Statement(corollary2.check, corollary2.draw, "cantor", corollary2.Settings),
    "corollary3": Statement(corollary3.check, None, "cantor", corollary3.Settings),
    "conjecture1": Statement(conjecture1.check, conjecture1.draw, "random", conjecture1.Settings),
}
NAMES = f"all or one of {', '.join(STATEMENTS)}, or a list of these"


@dataclass(frozen=True, kw_only=True)
class Keys(Looks):
    """The keys at the top of conf/theory.yaml."""

    fractal: Mapping[str, Any] = key("the config group ``fractal``")
    curve: Mapping[str, Any] = key("the config group ``curve``")
    statement: str | tuple[str, ...] = key("which statements", allowed=NAMES)
    shrink: float = key("every image of K0 so many times as large", above=0, most=1)
    margin: float | None = key("gamma of Assumption 3; null: a tenth of the smallest cell's inradius", above=0)
    points: int = key("points that a constructed network is checked on", least=1, most=10**9)
    seed: int = key("seed of everything random", least=0, most=2**63 - 1, allowed=A_SEED)
    threads: int = key("threads of torch", least=1, most=1024)
    figures: bool = key("a picture of each statement")

    def check(self) -> None:
        """Raises ConfigError for unknown statements too."""
        super().check()
        for name in self._asked:
            if name not in ("all", *STATEMENTS):
                raise ConfigError(f"statement={shown(name)}: must be {NAMES}")

    @property
    def _asked(self) -> tuple[str, ...]:
        return (self.statement,) if isinstance(self.statement, str) else self.statement

    @property
    def statements(self) -> tuple[str, ...]:
        """The statements asked for by name."""
        every = tuple(name for name, each in STATEMENTS.items() if each.about != "random")
        return every if "all" in self._asked else self._asked


def problems(config: Mapping[str, Any]) -> tuple[Keys, list[tuple[str, Problem[Section]]]]:
    """The keys at the top, and what each statement asked for is checked on. Raises ConfigError for bad values.

    All sections are parsed, of statements that aren't asked for as well.
    """
    own = {name: each.settings for name, each in STATEMENTS.items() if each.settings is not Section}
    keys = Keys.parse({name: value for name, value in config.items() if name not in own})
    sections = {
        name: settings.parse(checked(name, config.get(name, {}), Mapping[str, Any], {}))
        for name, settings in own.items()
    }
    names = keys.statements
    return keys, [(name, problem_of(name, keys, sections.get(name, Section()), len(names) == 1)) for name in names]


def problem_of(name: str, keys: Keys, settings: Section, alone: bool) -> Problem[Section]:
    """What a statement is checked on: the chosen fractal, or the Cantor set for a statement about that.

    `alone`: whether only this statement runs. If so, a statement on the line refuses a plane fractal, one map and too
    many cells; if not, it uses the Cantor set. Raises ConfigError for bad values.
    """
    about = STATEMENTS[name].about
    n, ifs = depth_of(keys.fractal), CubeIFS.of(AffineIFS.from_config(keys.fractal)).shrunk(keys.shrink)
    curve, gamma = ApproximationCurve.from_config(keys.curve), keys.margin
    points = settings.points if isinstance(settings, corollary1.Settings) else keys.points
    unfit = isinstance(settings, theorem4.Settings) and (ifs.d > 1 or ifs.r == 1 or ifs.r**settings.n > MOST_CELLS)
    if about == "cantor" or (unfit and not alone):
        ifs = CANTOR
    if about == "line" and not alone:  # it has another depth, for which the margin of the others is too large
        gamma = None
    if isinstance(settings, LineSection):
        n = settings.n
        if not curve.fits(n) and settings.curve_names:  # one that is given level by level, for another depth
            curve = ApproximationCurve.load(settings.curve_names[0])
        curve.level_probabilities(n)
    settings.check_for(ifs, n)
    if about in ("cantor", "random"):  # they choose the margin themselves
        gamma = 0.0
    else:
        ifs.require_separated()
        curve.level_probabilities(n)
        gamma = ifs.margin(n, gamma, f"{settings.PREFIX}n" if isinstance(settings, LineSection) else "fractal.depth")
    return Problem(ifs, n, gamma, curve, points, keys.seed, settings, fastest())

"""The keys of conf/theory.yaml: those at its top, and a section for each statement of the paper.

Without numpy and torch, so that ``--help`` has them at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fractal_ifs import fractals  # whose names are imported when they are used
from fractal_ifs.config.keys import A_SEED, Group, key, shown
from fractal_ifs.errors import ConfigError, counted
from fractal_ifs.networks.sizes import LARGEST_CHECKED, check_width, split
from fractal_ifs.plotting.keys import Looks
from fractal_ifs.theorems.depths import folded_depth, least_depths

MOST_CELLS = 2**20  # every one is gone through for each row of the table of Theorem 4, in about ten seconds
DEEPEST = 30  # float64 can't separate the cells 3^-n of C_n beyond
DEEPEST_FOLD = 11  # t for which float64 realises the folded network
LEAST = 1e-12  # of delta and b: float64 has to tell 1 - delta from 1
BATCH = 100  # points of a step of training
CURVES = "a list of one or more curves, names or files"
NETWORKS = "a list that is not empty, each entry [width k, depth t]: whole numbers, 1 <= k <= 1e6 and 2 <= t <= 1000"


@dataclass(frozen=True, kw_only=True)
class Section(Group):
    """A statement of the paper and its keys, a section of conf/theory.yaml; this one has none.

    The docstring of a subclass is the statement, and the help has it. `ABOUT` says which fractals it is about: "any",
    those on the "line", the "cantor" set of Section 4, or "random" ones: an experiment, as long as one wants it.
    """

    ABOUT: ClassVar[str] = "any"

    @property
    def unread(self) -> dict[str, str]:
        """The keys of the fractal and the curve that the statement doesn't read, each with the reason."""
        if self.ABOUT == "cantor":
            itself = dict.fromkeys(("fractal", "shrink"), "it is about the Cantor set")
            return {**itself, "curve": "it has a curve of its own", "margin": "it has a margin of its own"}
        if self.ABOUT == "random":
            return dict.fromkeys(("fractal", "shrink", "margin", "curve"), "it draws its own")
        return {}

    def check_for(self, ifs: fractals.CubeIFS, n: int) -> None:
        """Raises ConfigError for values that don't fit the problem's IFS and depth."""


@dataclass(frozen=True, kw_only=True)
class LineSection(Section):
    """The section of a statement on the line that is checked on a depth and curves of its own."""

    n: int
    curves: tuple[str | int, ...]

    @property
    def curve_names(self) -> list[str]:
        """The curves of conf/curve/ among ``curves``."""
        return [str(name) for name in self.curves]

    @property
    def unread(self) -> dict[str, str]:
        """Besides, the depth of ``fractal``, and of ``curve`` what stands in ``curves``."""
        found = super().unread | {"fractal.depth": f"its depth is {self.PREFIX}n"}
        if "curve" in found:
            found["curve"] = f"its curves are {self.PREFIX}curves"
        return found

    def check(self) -> None:
        """Raises ConfigError for a curve that doesn't exist, or not for depth n."""
        for name in self.curve_names:
            try:
                fractals.ApproximationCurve.load(name).level_probabilities(self.n)
            except ConfigError as error:
                raise ConfigError(
                    f"{self.PREFIX}curves={name}: must be a curve of depth {self.PREFIX}n={self.n} ({error})"
                ) from None


@dataclass(frozen=True, kw_only=True)
class NetworksSection(LineSection):
    """One that is checked on networks of given sizes too."""

    networks: tuple[tuple[int, int], ...] = key(
        "widths k and depths t, the readout counted", least=1, most=10**6, allowed=NETWORKS
    )

    def check(self) -> None:
        """Raises ConfigError for a network without a hidden layer, or with more than anyone trains; and for curves."""
        for k, t in self.networks:
            if not 2 <= t <= 1000:
                raise ConfigError(f"{self.PREFIX}networks={[k, t]}: must be {NETWORKS}")
        super().check()


@dataclass(frozen=True, kw_only=True)
class Theorem1(Section):
    """A network of width 5 d r and depth 2 n + 1 has zero error on every D_n that meets Assumptions 1 to 3."""

    PREFIX: ClassVar[str] = "theorem1."

    @property
    def unread(self) -> dict[str, str]:
        """The curve: every point has to be right, wherever it is drawn from."""
        return {"curve": "its network is right for every curve"}


@dataclass(frozen=True, kw_only=True)
class Corollary1(Section):
    """For every s <= n, width 5 d r^s and depth 2 floor(n/s) + 2 are enough for zero error."""

    PREFIX: ClassVar[str] = "corollary1."

    points: int = key("points that a network is checked on", least=1, most=10**9)
    s: tuple[int, ...] | None = key("levels that a block folds; null: every s whose network is narrow enough", least=1)

    @property
    def unread(self) -> dict[str, str]:
        """As of Theorem 1."""
        return {"curve": "its networks are right for every curve"}

    def check_for(self, ifs: fractals.CubeIFS, n: int) -> None:
        """Raises ConfigError for s > n, and where a network would be too wide."""
        for s in self.steps(ifs, n):
            try:
                split(n, s)
            except ConfigError as error:
                raise ConfigError(f"{self.PREFIX}{error}") from None
            check_width(ifs, s, f"{self.PREFIX}s={s}")

    def steps(self, ifs: fractals.CubeIFS, n: int) -> tuple[int, ...]:
        """Every s to check. Raises ConfigError where s=null finds none."""
        if self.s is not None:
            return tuple(dict.fromkeys(self.s))
        found = tuple(s for s in range(1, n + 1) if fractals.built_width(ifs, s) <= LARGEST_CHECKED)
        if not found:
            raise ConfigError(
                f"{self.PREFIX}s=null: with fractal.d={ifs.d} and {counted(ifs.r, 'map')} even s=1 is wider than "
                f"{LARGEST_CHECKED}; give s"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class Theorem2(Section):
    """Without holes in D_n, zero error needs width k >= (d/e) r^(n / (t d)); and the regions its proof counts."""

    PREFIX: ClassVar[str] = "theorem2."

    width: int = key("units of a hidden layer", least=1, most=10**6)
    depth: int = key("hidden layers", least=1, most=1000)
    lines: int = key("segments across K0, where d > 1", least=1, most=10**6)
    train_steps: int = key("steps of Adam", least=1, most=10**9)


@dataclass(frozen=True, kw_only=True)
class Theorem3(Section):
    """A network that resolves K_j, as that of Corollary 1 for n = j, has error at most 1 - P(j) on every D_n."""

    PREFIX: ClassVar[str] = "theorem3."

    width: int = key("units of a hidden layer", least=1, most=10**6)
    train_steps: int = key("steps of Adam", least=1, most=10**9)


@dataclass(frozen=True, kw_only=True)
class Theorem4(NetworksSection):
    """Depth t and width k < r^s leave an error of at least (1 - r^(s t - j)) (1 - P(j)), n > j > s t."""

    PREFIX: ClassVar[str] = "theorem4."
    ABOUT: ClassVar[str] = "line"

    n: int = key("depth", least=1, most=40)
    curves: tuple[str | int, ...] = key(
        "curves beside the chosen one", empty=True, allowed="a list of curves, names or files"
    )
    train_steps: int = key("steps of Adam", least=1, most=10**9)

    def check_for(self, ifs: fractals.CubeIFS, n: int) -> None:
        """Raises ConfigError for d > 1, for a single map, and for more cells than can be gone through."""
        if ifs.d != 1:
            raise ConfigError(f"fractal={ifs.name}: Theorem 4 is for d=1, this has d={ifs.d}; try fractal=cantor")
        if ifs.r == 1:
            raise ConfigError(f"fractal={ifs.name}: Theorem 4 is for two or more maps (k < r^s), this has one")
        if ifs.r**n > MOST_CELLS:
            deepest = next(j for j in range(n, -1, -1) if ifs.r**j <= MOST_CELLS)
            raise ConfigError(
                f"{self.PREFIX}n={n}: must be <= {deepest}, else {ifs.name} has more than {MOST_CELLS:,} cells, "
                "each of which is gone through"
            )


@dataclass(frozen=True, kw_only=True)
class Theorem5(NetworksSection):
    """At initialisation the population gradient on a Cantor distribution is at most 5 (P(n') - 1/2)."""

    PREFIX: ClassVar[str] = "theorem5."
    ABOUT: ClassVar[str] = "cantor"

    n: int = key("depth of the Cantor set", least=2, most=DEEPEST)
    delta: float = key("the gradient is small with probability 1 - delta", least=LEAST, below=1)
    biases: tuple[float, ...] = key("b, the initial value of every bias", least=LEAST, most=0.5)
    curves: tuple[str | int, ...] = key("curves; own: the chosen one", allowed=f"{CURVES}, or own")
    initialisations: int = key("networks of each kind", least=1, most=10**9)

    @property
    def curve_names(self) -> list[str]:
        """The curves of conf/curve/ among ``curves``."""
        return [name for name in super().curve_names if name != "own"]

    @property
    def unread(self) -> dict[str, str]:
        """Where own is among ``curves``, the chosen one is read."""
        reason = f"its curves are {self.PREFIX}curves, where own is the chosen one"
        return {
            name: reason if name == "curve" else why
            for name, why in super().unread.items()
            if name != "curve" or "own" not in self.curves
        }


@dataclass(frozen=True, kw_only=True)
class Corollary2(Section):
    """A distribution that depth t and width 10 realise, no small shallow network, no training."""

    PREFIX: ClassVar[str] = "corollary2."
    ABOUT: ClassVar[str] = "cantor"

    width: int = key("k", least=10, most=1000)
    delta: float = key("the network is stuck with probability 1 - delta", least=LEAST, below=1)
    biases: tuple[float, ...] = key("b, the initial value of every bias", least=LEAST, most=0.5)
    initialisations: int = key("networks for each bias", least=1, most=10**9)
    train_steps: int = key("steps of Adam", least=1, most=10**9)

    def check(self) -> None:
        """Raises ConfigError where Theorem 5 needs a network that is too deep for float64."""
        _, t = least_depths(self.width, self.delta, min(self.biases))
        if t > DEEPEST_FOLD:
            raise ConfigError(
                f"{self.PREFIX}width={self.width}: needs t={t}, n={folded_depth(t)}, with delta={self.delta:g} and "
                f"b={min(self.biases):g}; must have t <= {DEEPEST_FOLD} for float64"
            )


@dataclass(frozen=True, kw_only=True)
class Corollary3(LineSection):
    """Strong depth separation makes the population gradient exponentially small."""

    PREFIX: ClassVar[str] = "corollary3."
    ABOUT: ClassVar[str] = "cantor"

    width: int = key("k", least=1, most=10**6)
    t: int = key("depth, the readout counted", least=2, most=1000)
    delta: float = key("both bounds hold with probability 1 - delta", least=LEAST, below=1)
    n: int = key("depth of the Cantor set", least=1, most=DEEPEST)
    biases: tuple[float, ...] = key("b, the initial value of every bias", least=LEAST, most=0.5)
    curves: tuple[str | int, ...] = key("curves", allowed=CURVES)
    initialisations: int = key("networks for each bias", least=1, most=10**9)


@dataclass(frozen=True, kw_only=True)
class Conjecture1(Section):
    """Where shallow networks stay near error 1/2, do deep ones fail to learn?"""

    PREFIX: ClassVar[str] = "conjecture1."
    ABOUT: ClassVar[str] = "random"

    systems: int = key("random IFSs, depths and curves", least=6, most=10**6)
    width: int = key("units of a hidden layer; two images in d = 3 take 28", least=28, most=10**6)
    shallow: int = key("hidden layers of the shallow networks", least=1, most=1000)
    deep: int = key("hidden layers of the deep networks; one level takes 2", least=2, most=1000)
    steps: int = key("steps of Adam", least=1, most=10**9)
    lrs: tuple[float, ...] = key("learning rates, of which the best counts", above=0, most=1e38)
    seeds: int = key("networks for each learning rate, of which the best counts", least=1, most=10**6)
    train_size: int = key("training points", least=BATCH, most=10**9)


# By the statements' names.
SECTIONS = {
    kind.PREFIX.rstrip("."): kind
    for kind in (Theorem1, Corollary1, Theorem2, Theorem3, Theorem4, Theorem5, Corollary2, Corollary3, Conjecture1)
}
NAMES = f"all or one of {', '.join(SECTIONS)}, or a list of these"


@dataclass(frozen=True, kw_only=True)
class Theory(Looks):
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
            if name not in ("all", *SECTIONS):
                raise ConfigError(f"statement={shown(name)}: must be {NAMES}")

    @property
    def _asked(self) -> tuple[str, ...]:
        return (self.statement,) if isinstance(self.statement, str) else self.statement

    @property
    def statements(self) -> tuple[str, ...]:
        """The statements asked for by name."""
        every = tuple(name for name, kind in SECTIONS.items() if kind.ABOUT != "random")
        return every if "all" in self._asked else self._asked

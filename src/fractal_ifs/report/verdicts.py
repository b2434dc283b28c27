"""Whether our numbers support the claims of section 5 of the paper.

Each claim has a verdict and a statistic, of ours and of the paper's own numbers. The paper's statistic is over the
cells that we have run, or over all its cells where we have none.

The networks of one data set aren't independent: they share their points. So a fractal is one observation, whatever the
number of widths. An effect over several fractals has an interval of 95% by Student's t, over the fractals' means; of
one data set there is none, and the range over its widths is told instead. Trends along depth or curve have a p-value
that is exact, see `trend`. Such a claim is supported or contradicted where the effect is more than ``EFFECT``, its
interval or range is to one side of 0 and p < ``P``, and otherwise undecided. The other claims have no such test. The
thresholds that decide them are in their functions.

Of equal accuracies none is better: they share their rank in a trend, and pairs of them are counted apart. Of two equal
maxima that of the smaller width is named.

A trend, or a gain at equal parameters, that its interval doesn't tell from 0 decides nothing, and neither does an
accuracy on the 2D Cantor set that its seeds, or of one network its test points, don't tell from .98. All other
thresholds, as those of the fine Vicsek set, the Sierpinsky exception and CIFAR-10, are compared with the numbers alone.

Cells of another budget take part only in verdicts that those of the paper's budget can't give: a narrow network after
10^6 steps must not be compared with a wide one after 10^5.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from typing import Any

from fractal_ifs.config.measures import TRAIN_POINTS
from fractal_ifs.errors import counted
from fractal_ifs.report.tables import FRACTALS, Table
from fractal_ifs.results.cells import CellResult

P = 0.01  # the largest p-value that decides a claim
CHANCE = 0.6  # accuracies up to this one are near chance, .5
EFFECT = 0.02  # larger differences of accuracy matter; one on 5,000 test points has a standard error of .007
TEST_POINTS = 5000  # the paper's

Grid = Mapping[str, Sequence[Sequence[float | None]]]  # accuracies by fractal: a row per depth or curve, then widths
Lines = dict[str, list[list[float]]]  # by fractal: for each width the accuracies down the rows
Statement = tuple[str, str, str]  # a verdict, the statistic as text, and what it is from


@dataclass(frozen=True)
class Verdict:
    """What the numbers say of one claim."""

    claim: str
    verdict: str  # supported, contradicted, undecided, not run; with a star where cells of another budget take part
    ours: str  # our statistic
    theirs: str  # that of the paper's numbers
    cells: str  # how many lines, networks or widths ours is from


def grids(table: Table) -> tuple[Grid, Grid]:
    """Our accuracies and the paper's. Ours are without those of another protocol.

    The paper's are for the cells that we have run, or for all cells if we have none.
    """
    ours = {f: [[None if c.differs else c.ours for c in line] for line in block] for f, block in table.blocks.items()}
    some = any(v is not None for block in ours.values() for line in block for v in line)
    theirs = {
        fractal: [
            [None if some and v is None else c.theirs for c, v in zip(line, own, strict=True)]
            for line, own in zip(block, ours[fractal], strict=True)
        ]
        for fractal, block in table.blocks.items()
    }
    return ours, theirs


def judge(table: Table, claim: str, say: Callable[[Grid], Statement]) -> Verdict:
    """The verdict on a claim. ``say`` is called with our grid and with the paper's."""
    ours, theirs = grids(table)
    verdict, text, of = say(ours)
    return Verdict(claim, verdict, text, say(theirs)[1], of)


def columns(values: Grid, fractals: Sequence[str]) -> Lines:
    """The lines of each fractal that has any. A line with a missing value is left out."""
    found = {f: [list(line) for line in zip(*values[f], strict=True)] for f in fractals if f in values}
    whole = {f: [line for line in lines if all(v is not None for v in line)] for f, lines in found.items()}
    return {f: lines for f, lines in whole.items() if lines}  # pyright: ignore[reportReturnType]


def extent(found: Mapping[str, Sequence[Any]], what: str = "(fractal, width) line") -> str:
    """``4 fractals, 20 (fractal, width) lines``."""
    return f"{counted(len(found), 'fractal')}, {counted(sum(map(len, found.values())), what)}"


@dataclass(frozen=True)
class Effect:
    """A difference of accuracies that was measured on some data sets."""

    by_fractal: Mapping[str, float]  # the mean of each
    mean: float  # of these
    low: float  # the interval of 95% over the fractals; of one fractal, the least and the largest of its lines
    high: float

    def __str__(self) -> str:
        """``+0.164, 95% over 4 fractals +0.073 to +0.255``."""
        over = f"95% over {len(self.by_fractal)} fractals" if len(self.by_fractal) > 1 else "widths"
        return f"{self.mean:+.3f}, {over} {self.low:+.3f} to {self.high:+.3f}"

    @property
    def each(self) -> str:
        """``sierpinsky +0.094, cantor2d +0.233``."""
        return ", ".join(f"{fractal} {mean:+.3f}" for fractal, mean in self.by_fractal.items())


def effect(values: Mapping[str, Sequence[float]]) -> Effect:
    """The mean over fractals of the mean over each one's values, with its interval."""
    import numpy as np

    means = {fractal: float(np.mean(found)) for fractal, found in values.items()}
    every = list(means.values())
    mean, n = float(np.mean(every)), len(every)
    if n == 1:
        [found] = values.values()
        return Effect(means, mean, min(found), max(found))
    half = student(float(np.std(every, ddof=1)), n)
    return Effect(means, mean, mean - half, mean + half)


def student(sd: float, n: int) -> float:
    """Half of the interval of 95% of a mean of n values with this standard deviation."""
    from scipy.stats import t

    return float(t.ppf(0.975, n - 1) * sd / n**0.5)


@dataclass(frozen=True)
class Trend:
    """How accuracies rise along lines, from the first to the last."""

    gain: Effect
    p_rising: float
    p_falling: float

    def decide(self, falling: bool = False) -> str:
        """Whether they rise, or fall: supported, contradicted or undecided."""
        rises = self.gain.mean > EFFECT and self.gain.low > 0 and self.p_rising < P
        falls = self.gain.mean < -EFFECT and self.gain.high < 0 and self.p_falling < P
        return "undecided" if rises == falls else "supported" if falls == falling else "contradicted"


def trend(lines: Lines) -> Trend | None:
    """The gain along lines of equal length, and exact p-values that they rise, and fall. None where there are no lines.

    The statistic is Page's L, the sum over lines of number times rank. If depth, or the curve, had no effect, the rows
    of a fractal could be exchanged, all its widths at once as these share their points. So L is compared with its
    values under all exchanges, of each fractal by itself.
    """
    if not lines:
        return None
    import numpy as np
    from scipy.stats import rankdata

    gain = effect({f: [line[-1] - line[0] for line in own] for f, own in lines.items()})
    counts, observed = np.ones(1), 0  # how likely each value of 2 L is, from the least that there can be
    for own in lines.values():
        ranks = np.rint(2 * rankdata(np.round(own, 9), axis=1).sum(0)).astype(int)
        orders = np.array(list(permutations(range(len(ranks)))))
        values = ranks[orders] @ np.arange(1, len(ranks) + 1)
        observed += int(values[0] - values.min())  # the first order is the identity
        counts = np.convolve(counts, np.bincount(values - values.min()) / len(values))
    return Trend(gain, float(counts[observed:].sum()), float(counts[: observed + 1].sum()))


def depth_helps(table: Table) -> Verdict:
    """Table 1: accuracy rises with depth on a coarse curve, on the four fractals. One claim, counted once."""

    def say(values: Grid) -> Statement:
        lines = columns(values, list(FRACTALS))
        found = trend(lines)
        if found is None or len(lines) < len(FRACTALS):
            return "not run", "", extent(lines)
        gains = [round(b - a, 9) for own in lines.values() for line in own for a, b in pairwise(line)]  # of means
        better, equal = sum(gain > 0 for gain in gains), gains.count(0)
        said = f"depth 5 over depth 1: {found.gain} ({found.gain.each}); a layer more is better in {better} of "
        said += f"{len(gains)} pairs" + (f", equal in {equal}" if equal else "") + f"; p={found.p_rising:.1g}"
        return found.decide(), said, extent(lines)

    return judge(table, "Depth helps on a coarse curve, on all four fractals", say)


def parameters(depth: int, width: int, d: int = 2) -> int:
    """The number of weights and biases of a network with ``depth`` hidden layers and d inputs."""
    return d * width + width + (depth - 1) * (width * width + width) + width + 1


def utilisation(table: Table) -> Verdict:
    """Table 1: networks beat shallower ones with as many parameters.

    The accuracy of shallower networks is interpolated between widths, in log(parameters), by a curve that bends with
    the points (PCHIP). A straight line lies below a concave curve and would favour depth. A network's gain is the mean
    over the depths below its own. No p-value is given; all four fractals must agree.
    """
    import numpy as np
    from scipy.interpolate import PchipInterpolator

    def gains(block: Sequence[Sequence[float | None]]) -> list[float]:
        curves, found = {}, []
        for depth, line in zip(table.rows, block, strict=True):
            points = [
                (np.log(parameters(depth, w)), v) for w, v in zip(table.widths, line, strict=True) if v is not None
            ]
            for p, v in points:
                shallower = [curve for x, curve in curves.values() if x[0] <= p <= x[-1]]
                if shallower:
                    found.append(float(np.mean([v - curve(p) for curve in shallower])))
            if len(points) > 1:
                x, y = np.array(points).T
                curves[depth] = (x, PchipInterpolator(x, y))
        return found

    def say(values: Grid) -> Statement:
        by_fractal = {fractal: found for fractal, block in values.items() if (found := gains(block))}
        every = [g for found in by_fractal.values() for g in found]
        of = extent(by_fractal, "network")
        if len(by_fractal) < len(FRACTALS):
            return "not run", "", of
        gain = effect(by_fractal)
        agree = all(m * gain.mean > 0 for m in gain.by_fractal.values()) and gain.low * gain.high > 0
        verdict = "undecided"
        if agree and abs(gain.mean) > EFFECT:
            verdict = "supported" if gain.mean > 0 else "contradicted"
        better = f"better in {sum(round(g, 9) > 0 for g in every)} of {len(every)}"
        return verdict, f"at equal parameters {gain} ({gain.each}); {better}", of

    return judge(table, "Deeper networks use their parameters better on a coarse curve", say)


def finer_is_worse(table: Table) -> Verdict:
    """Table 2: at depth 5 accuracy falls from the coarsest curve to the finest, except on the Sierpinsky triangle."""
    fractals = [f for f in FRACTALS if f != "sierpinsky"]

    def say(values: Grid) -> Statement:
        lines = columns(values, fractals)
        found = trend(lines)
        if found is None or len(lines) < len(fractals):
            return "not run", "", extent(lines)
        said = f"curve 6 over curve 1: {found.gain} ({found.gain.each}); p={found.p_falling:.1g}"
        return found.decide(falling=True), said, extent(lines)

    return judge(table, "Finer curves are worse at fixed depth: Cantor, pentaflake, Vicsek", say)


def sierpinsky_exception(table: Table, least_width: int = 50) -> Verdict:
    """Table 2: at large widths the range over the curves is small for Sierpinsky, and large for each of the others."""

    def say(values: Grid) -> Statement:
        falls: dict[str, list[float]] = {}
        for fractal, block in values.items():
            for width, line in zip(table.widths, zip(*block, strict=True), strict=True):
                if width >= least_width and None not in line:
                    falls.setdefault(fractal, []).append(max(line) - min(line))  # pyright: ignore[reportArgumentType]
        of = extent(falls)
        if len(falls) < len(FRACTALS):
            return "not run", "", of
        largest, others = max(falls["sierpinsky"]), min(min(v) for f, v in falls.items() if f != "sierpinsky")
        verdict = (
            "supported" if largest <= 0.03 and others >= 0.1 else "contradicted" if largest >= others else "undecided"
        )
        said = f"range over the curves at width >= {least_width}: Sierpinsky at most {largest:.3f}, "
        mean = effect({f: v for f, v in falls.items() if f != "sierpinsky"})
        said += f"the others at least {others:.3f} (mean {mean})"
        return verdict, said, of

    return judge(table, "The Sierpinsky set is the exception: the curve has no effect at large widths", say)


def fine_vicsek(table: Table) -> Verdict:
    """Figure 6: depth has no effect on the fine Vicsek set, and all networks are near chance."""
    lines = columns(grids(table)[0], ["vicsek"])
    claim = "On the fine Vicsek set of depth 6 depth brings nothing, and all networks are near chance"
    theirs = "slightly more than 0.5 for all (Figure 6; no numbers are printed)"
    if (found := trend(lines)) is None:
        return Verdict(claim, "not run", "", theirs, "0 widths")
    of = f"1 fractal, {len(lines['vicsek'])} widths"
    top = max(v for line in lines["vicsek"] for v in line)
    if top > CHANCE or found.decide() == "supported":
        verdict = "contradicted"
    else:
        verdict = "supported" if abs(found.gain.mean) <= EFFECT else "undecided"
    ours = f"depth 5 over depth 1: {found.gain}; p={found.p_rising:.1g}; best accuracy {top:.3f}"
    return Verdict(claim, verdict, ours, theirs, of)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's interval of 95% for a probability, of which ``share`` of n independent trials came true."""
    z = 1.96
    middle, half = share + z**2 / (2 * n), z * (share * (1 - share) / n + (z / (2 * n)) ** 2) ** 0.5
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


def nearly_solved(table: Table) -> Verdict:
    """Table 1: a wide enough network of depth 5 reaches accuracy 0.98 on the 2D Cantor set.

    The interval is Student's, over the seeds of the best width. Of one network it is that of its 5,000 test points, or
    of 10,000 in training, which doesn't have what another seed would give. What the choice of the best width and of the
    best of all measurements adds to the accuracy is in neither.
    """
    points = TEST_POINTS if table.number.beside_paper else TRAIN_POINTS
    ours, theirs = grids(table)
    results = {w: cell.result for w, cell in zip(table.widths, table.blocks["cantor2d"][-1], strict=True)}

    def say(values: Grid, results: Mapping[int, CellResult | None]) -> Statement:
        line = {w: v for w, v in zip(table.widths, values["cantor2d"][-1], strict=True) if v is not None}
        if not line:
            return "not run", "", "0 widths"
        width, best = max(line.items(), key=lambda item: item[1])
        if (result := results.get(width)) and result.spread is not None:
            half = student(result.spread, result.seeds)
            over, low, high = f"over {result.seeds} seeds", max(0.0, best - half), min(1.0, best + half)
        else:
            over, (low, high) = f"of {points:,} points", wilson(best, points)
        verdict = "supported" if low >= 0.98 else "undecided"
        if high < 0.98 and set(line) == set(table.widths):
            verdict = "contradicted"
        said = f"accuracy {best:.3f} at width {width}, 95% {over} {low:.3f} to {high:.3f}"
        return verdict, said, f"1 fractal, {len(line)} widths"

    verdict, said, of = say(ours, results)
    claim = "A wide enough network of depth 5 nearly solves the 2D Cantor set on curve 1"
    return Verdict(claim, verdict, said, say(theirs, {})[1], of)


def cifar10(table: Table) -> Verdict:
    """Figure 7: the mean gain of each layer, over widths where all depths were measured, is large, then small."""

    def say(values: Grid) -> Statement:
        if not (lines := columns(values, ["CIFAR-10"]).get("CIFAR-10")):
            return "not run", "", "0 widths"
        gains = [sum(b - a for a, b in pairs) / len(lines) for pairs in zip(*map(pairwise, lines), strict=True)]
        early, late = gains[0] + gains[1], gains[2] + gains[3]
        verdict = "supported" if early > EFFECT and abs(late) < early / 2 else "undecided"
        verdict = "contradicted" if early < -EFFECT or late > max(early, EFFECT) else verdict
        said = "layers 2 to 5 bring " + ", ".join(f"{g:+.3f}" for g in gains)
        both = [effect({"CIFAR-10": [line[b] - line[a] for line in lines]}) for a, b in ((0, 2), (2, 4))]
        return verdict, f"{said}; 2 and 3 {both[0]}; 4 and 5 {both[1]}", f"1 data set, {len(lines)} widths"

    claim = "On CIFAR-10 depth helps gradually: the second and third layer most, then saturation"
    return judge(table, claim, say)


def verdicts(tables: Sequence[Table]) -> list[Verdict]:
    """The verdicts on all claims. ``tables``: as ``tables.tables`` returns them."""
    of_whole, of_all = _verdicts([_whole(table) for table in tables]), _verdicts(tables)
    return [_provisional(v) if w.verdict == "not run" else w for w, v in zip(of_whole, of_all, strict=True)]


def _verdicts(tables: Sequence[Table]) -> list[Verdict]:
    one, two, six, *seven = tables
    found = [depth_helps(one), utilisation(one), nearly_solved(one), finer_is_worse(two), sierpinsky_exception(two)]
    of_six = [fine_vicsek(six)] if six.number.beside_paper else []  # it is of test accuracies: a network may memorize
    return [*found, *of_six, *map(cifar10, seven)]


def _whole(table: Table) -> Table:
    """The table without our numbers of another budget than the paper's, or of runs that have not ended."""
    blocks = {
        name: [[replace(c, ours=None) if c.partial else c for c in line] for line in block]
        for name, block in table.blocks.items()
    }
    return replace(table, blocks=blocks)


def _provisional(found: Verdict) -> Verdict:
    """Mark a verdict that rests partly on cells of another budget than the paper's."""
    return found if found.verdict == "not run" else replace(found, verdict=f"{found.verdict}*")


def rows(found: Sequence[Verdict]) -> list[list[str]]:
    """The verdicts as a table with a head, without the column of the paper's numbers where it has none."""
    head = ["claim of section 5", "verdict", "ours", "the paper's own numbers, same cells", "from"]
    table = [head, *([v.claim, v.verdict, v.ours, v.theirs, v.cells] for v in found)]
    return table if any(v.theirs for v in found) else [row[:3] + row[4:] for row in table]


def markdown(found: Sequence[Verdict]) -> str:
    """The verdicts as a table in Markdown."""
    lines: list[str] = []
    for row in rows(found):
        claim, verdict, *others = row
        starred = f"**{verdict.rstrip('*')}**" + "\\*" * verdict.endswith("*")
        lines.append("| " + " | ".join([claim, starred if lines else verdict, *others]) + " |")
    lines.insert(1, "|---" * len(rows(found)[0]) + "|")
    if any(v.verdict.endswith("*") for v in found):
        lines += ["", "\\* Cells of another budget than the paper's take part in this verdict; it may change."]
    return "\n".join([*lines, ""]).replace("+-", "±")

"""Whether our numbers support the claims of section 5 of the paper.

Each claim has a verdict and a statistic, of ours and of the paper's own numbers. The paper's statistic is over the
cells that we have run, or over all its cells where we have none.

Trends along depth or curve are tested by Page's L, on ordered columns with a line per fractal and width. Such a claim
is supported or contradicted where the effect is more than ``EFFECT`` and p < ``P``, and otherwise undecided. The other
claims have no such test. The thresholds that decide them are in their functions.

Cells of another budget take part only in verdicts that those of the paper's budget can't give: a narrow network after
10^6 steps must not be compared with a wide one after 10^5.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from fractal_ifs.report.tables import FRACTALS, Table

P = 0.01  # the largest p-value that decides a claim
CHANCE = 0.6  # accuracies up to this one are near chance, .5
EFFECT = 0.02  # larger differences of accuracy matter; one on 5,000 test points has a standard error of .007

Grid = Mapping[str, Sequence[Sequence[float | None]]]  # accuracies by fractal: a row per depth or curve, then widths
Statement = tuple[str, str, int]  # a verdict, the statistic as text, and how many lines or networks it is from


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


def judge(table: Table, claim: str, say: Callable[[Grid], Statement], of: str) -> Verdict:
    """The verdict on a claim. ``say`` is called with our grid and with the paper's; ``of``: what it counts."""
    ours, theirs = grids(table)
    verdict, text, n = say(ours)
    return Verdict(claim, verdict, text, say(theirs)[1], f"{n} {of}")


def columns(values: Grid, fractals: Sequence[str]) -> list[list[float]]:
    """A line per fractal and width: the accuracies down the rows. A line with a missing value is left out."""
    lines = [list(line) for f in fractals if f in values for line in zip(*values[f], strict=True)]
    return [line for line in lines if all(v is not None for v in line)]  # pyright: ignore[reportReturnType]


def trend(lines: Sequence[Sequence[float]], falling: bool = False) -> tuple[float, float, float] | None:
    """Page's test of an increasing (or falling) trend along lines of equal length.

    Returns the mean gain (or loss) from the first value to the last, the p-value of such a trend, and the p-value of
    the opposite trend. None for fewer than two lines.
    """
    if len(lines) < 2:
        return None
    from scipy.stats import page_trend_test

    sign = -1 if falling else 1
    gain = sum(line[-1] - line[0] for line in lines) / len(lines)
    up, down = ([[s * v for v in line] for line in lines] for s in (sign, -sign))
    return sign * gain, float(page_trend_test(up).pvalue), float(page_trend_test(down).pvalue)


def _decide(effect: float, p_for: float, p_against: float) -> str:
    if effect > EFFECT and p_for < P:
        return "supported"
    return "contradicted" if effect < -EFFECT and p_against < P else "undecided"


def depth_helps(table: Table) -> list[Verdict]:
    """Table 1: accuracy rises with depth on a coarse curve, on all fractals together and on each."""
    out = []
    for label, fractals in [("all four fractals", list(FRACTALS)), *((FRACTALS[f], [f]) for f in FRACTALS)]:

        def say(values: Grid, fractals: list[str] = fractals) -> Statement:
            lines = columns(values, fractals)
            if (found := trend(lines)) is None:
                return "not run", "", len(lines)
            better = [b > a for line in lines for a, b in pairwise(line)]
            said = (
                f"depth 5 over depth 1: {found[0]:+.3f}, a layer more is better in {sum(better)} of {len(better)} pairs"
            )
            return _decide(*found), f"{said}, Page p={found[1]:.1g}", len(lines)

        out.append(judge(table, f"Depth helps on a coarse curve: {label}", say, "(fractal, width) lines"))
    return out


def parameters(depth: int, width: int, d: int = 2) -> int:
    """The number of weights and biases of a network with ``depth`` hidden layers and d inputs."""
    return d * width + width + (depth - 1) * (width * width + width) + width + 1


def utilisation(table: Table) -> Verdict:
    """Table 1: networks beat shallower ones with as many parameters.

    The accuracy of shallower networks is interpolated between widths, in log(parameters), by a curve that bends with
    the points (PCHIP). A straight line lies below a concave curve and would favour depth. A network's gain is the mean
    over the depths below its own. Networks on one fractal are not independent. So no p-value is given, and all four
    fractals must agree.
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
        if len(by_fractal) < len(FRACTALS):
            return "not run", "", len(every)
        mean, means = float(np.mean(every)), {f: float(np.mean(found)) for f, found in by_fractal.items()}
        agree = all(m * mean > 0 for m in means.values())
        verdict = ("supported" if mean > 0 else "contradicted") if agree and abs(mean) > EFFECT else "undecided"
        said = ", ".join(f"{f} {m:+.3f}" for f, m in means.items())
        better = f"better in {sum(g > 0 for g in every)} of {len(every)}"
        return verdict, f"{mean:+.3f} at equal parameters ({said}), {better}", len(every)

    return judge(table, "Deeper networks use their parameters better on a coarse curve", say, "networks")


def finer_is_worse(table: Table) -> Verdict:
    """Table 2: at depth 5 accuracy falls from the coarsest curve to the finest, except on the Sierpinsky triangle."""
    fractals = [f for f in FRACTALS if f != "sierpinsky"]

    def say(values: Grid) -> Statement:
        lines = columns(values, fractals)
        if (found := trend(lines, falling=True)) is None:
            return "not run", "", len(lines)
        return _decide(*found), f"curve 6 below curve 1 by {found[0]:.3f}, Page p={found[1]:.1g}", len(lines)

    claim = "Finer curves are worse at fixed depth: Cantor, pentaflake, Vicsek"
    return judge(table, claim, say, "(fractal, width) lines")


def sierpinsky_exception(table: Table, least_width: int = 50) -> Verdict:
    """Table 2: at large widths the range over the curves is small for Sierpinsky, and large for each of the others."""

    def say(values: Grid) -> Statement:
        falls: dict[str, list[float]] = {}
        for fractal, block in values.items():
            for width, line in zip(table.widths, zip(*block, strict=True), strict=True):
                if width >= least_width and None not in line:
                    falls.setdefault(fractal, []).append(max(line) - min(line))  # pyright: ignore[reportArgumentType]
        if len(falls) < len(FRACTALS):
            return "not run", "", sum(map(len, falls.values()))
        largest, others = max(falls["sierpinsky"]), min(min(v) for f, v in falls.items() if f != "sierpinsky")
        verdict = (
            "supported" if largest <= 0.03 and others >= 0.1 else "contradicted" if largest >= others else "undecided"
        )
        said = f"range over the curves at width >= {least_width}: Sierpinsky at most {largest:.3f}, "
        said += f"the others at least {others:.3f}"
        return verdict, said, sum(map(len, falls.values()))

    claim = "The Sierpinsky set is the exception: the curve has no effect at large widths"
    return judge(table, claim, say, "(fractal, width) lines")


def fine_vicsek(table: Table) -> Verdict:
    """Figure 6: depth has no effect on the fine Vicsek set, and all networks are near chance."""
    lines = columns(grids(table)[0], ["vicsek"])
    claim = "On the fine Vicsek set of depth 6 depth brings nothing, and all networks are near chance"
    theirs = "slightly more than 0.5 for all (Figure 6; no numbers are printed)"
    if (found := trend(lines)) is None:
        return Verdict(claim, "not run", "", theirs, f"{len(lines)} widths")
    top = max(v for line in lines for v in line)
    if top > CHANCE or (found[0] > EFFECT and found[1] < P):
        verdict = "contradicted"
    else:
        verdict = "supported" if abs(found[0]) <= EFFECT else "undecided"
    ours = f"depth 5 over depth 1: {found[0]:+.3f} (Page p={found[1]:.1g}), best accuracy {top:.3f}"
    return Verdict(claim, verdict, ours, theirs, f"{len(lines)} widths")


def nearly_solved(table: Table) -> Verdict:
    """Table 1: a wide enough network of depth 5 reaches accuracy 0.98 on the 2D Cantor set."""

    def say(values: Grid) -> Statement:
        line = {w: v for w, v in zip(table.widths, values["cantor2d"][-1], strict=True) if v is not None}
        if not line:
            return "not run", "", 0
        width, best = max(line.items(), key=lambda item: item[1])
        verdict = "supported" if best >= 0.98 else "contradicted" if set(line) == set(table.widths) else "undecided"
        return verdict, f"accuracy {best:.3f} at width {width}", len(line)

    return judge(table, "A wide enough network of depth 5 nearly solves the 2D Cantor set on curve 1", say, "widths")


def cifar10(table: Table) -> Verdict:
    """Figure 7: the mean gain of each layer, over widths where all depths were measured, is large, then small."""

    def say(values: Grid) -> Statement:
        lines = columns(values, ["CIFAR-10"])
        if not lines:
            return "not run", "", 0
        gains = [sum(b - a for a, b in pairs) / len(lines) for pairs in zip(*map(pairwise, lines), strict=True)]
        early, late = gains[0] + gains[1], gains[2] + gains[3]
        verdict = "supported" if early > EFFECT and abs(late) < early / 2 else "undecided"
        verdict = "contradicted" if early < -EFFECT or late > max(early, EFFECT) else verdict
        return verdict, "layers 2 to 5 bring " + ", ".join(f"{g:+.3f}" for g in gains), len(lines)

    claim = "On CIFAR-10 depth helps gradually: the second and third layer most, then saturation"
    return judge(table, claim, say, "widths")


def verdicts(tables: Sequence[Table]) -> list[Verdict]:
    """The verdicts on all claims. ``tables``: as ``tables.tables`` returns them."""
    of_whole, of_all = _verdicts([_whole(table) for table in tables]), _verdicts(tables)
    return [_provisional(v) if w.verdict == "not run" else w for w, v in zip(of_whole, of_all, strict=True)]


def _verdicts(tables: Sequence[Table]) -> list[Verdict]:
    one, two, six, *seven = tables
    of_one = [*depth_helps(one), utilisation(one), nearly_solved(one)]
    return [*of_one, finer_is_worse(two), sierpinsky_exception(two), fine_vicsek(six), *map(cifar10, seven)]


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


def markdown(found: Sequence[Verdict]) -> str:
    """The verdicts as a table in Markdown."""
    lines = [
        "| claim of section 5 | verdict | ours | the paper's own numbers, same cells | from |",
        "|---|---|---|---|---|",
    ]
    for v in found:
        verdict = f"**{v.verdict.rstrip('*')}**" + "\\*" * v.verdict.endswith("*")
        lines.append(f"| {v.claim} | {verdict} | {v.ours} | {v.theirs} | {v.cells} |")
    if any(v.verdict.endswith("*") for v in found):
        lines += ["", "\\* Cells of another budget than the paper's take part in this verdict; it may change."]
    return "\n".join([*lines, ""]).replace("+-", "±")

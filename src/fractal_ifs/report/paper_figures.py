"""Figures 4 to 7 as the paper draws them, with our numbers beside the paper's, and figures of our own.

A function returns None where no cell belongs to its figure.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.fractals.ifs import AffineIFS
from fractal_ifs.plotting.style import (
    ACCENT,
    Line,
    Output,
    columns_of,
    drawing,
    lines,
    literal,
    ordered,
    panels_of,
    thousands,
    write_figure,
)
from fractal_ifs.report.panels import CARRIED, carried, looks_of, over_seeds
from fractal_ifs.report.tables import CURVES, FRACTALS, paper
from fractal_ifs.results.cells import CellResult, Cells, differences
from fractal_ifs.results.columns import ENDED, CellKey
from fractal_ifs.results.numbers import learning_curve
from fractal_ifs.results.values import plain_value

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCREEN = Output()
LEAST = 1.5  # inches of a panel


def write_figures(
    runs: "pd.DataFrame",
    ours: Cells,
    directory: Path,
    output: Output = SCREEN,
) -> list[Path]:
    """Write every figure that some cell belongs to. Returns the files, of each figure the first format.

    Args:
        runs: as ``results.rows.read_runs`` returns it.
        ours: as ``results.cells.form_cells`` does.
    """
    with drawing():
        figures = {
            "figure4": figure4(ours, output),
            "figure5": figure5(ours, output),
            "figure6": figure6(ours, output),
            "figure7": figure7(ours, output),
            "parameters": parameters(ours, output),
            "theorem3": theorem3(ours, output),
            "learning_curves": learning_curves(runs, output=output),
        }
        found = {name: figure for name, figure in figures.items() if figure is not None}
        return [write_figure(figure, directory, name, output) for name, figure in found.items()]


def _axes(
    panels: int,
    width: float = 4.6,
    height: float = 3.6,
    output: Output = SCREEN,
    most: int = 6,
) -> tuple["Figure", list["Axes"]]:
    """A figure of so many panels, and these row by row; at most ``most`` in a row, in a column of a paper one or two.

    ``width``, ``height``: of one of them, in inches.
    """
    from matplotlib.figure import Figure

    columns = panels_of(output, LEAST, min(most, panels))
    rows = -(-panels // columns)
    folded = columns < min(most, panels)  # its title and legend take lines of their own
    figure = Figure(figsize=(width * columns, height * rows + 2.5 * folded), layout="constrained")
    axes_of = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in axes_of[panels:]:
        axes.set_visible(False)
    return figure, axes_of[:panels]


def _legend(figure: "Figure", axes: "Axes", named: Mapping[str, Any], output: Output) -> None:
    """One legend for all panels: at the right of the last one, below them in a column of a paper."""
    if output.width is None:
        axes.legend(named.values(), named, fontsize=output.font or 8, loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        figure.legend(named.values(), named, fontsize=output.font or 8, loc="outside lower center")


def _by_budget(line: Sequence[tuple[Any, CellResult]]) -> list[list[tuple[Any, CellResult]]]:
    """The points of a line, apart by their budget. One line through several would fall where the budget falls."""
    return [[p for p in line if p[1].budget == b] for b in sorted({cell.budget for _, cell in line})]


def _draw_by_depth(
    axes: "Axes",
    ours: Cells,
    where: tuple[str, str | None, int | None, str | None],
    widths: Sequence[int],
    theirs: Sequence[Sequence[float]] | None = None,
    *,
    output: Output,
) -> None:
    """Accuracy against width, with a line per depth: ours solid with the spread over seeds, the paper's dashed.

    Args:
        where: data, fractal, its depth and curve: the first fields of ``CellKey``.
        theirs: the paper's accuracies, a row per depth 1 to 5, a column per width.
    """
    from matplotlib.lines import Line2D

    looks = ordered(5)
    partial, seeds = False, set[int]()
    for depth, look in zip(range(1, 6), looks, strict=True):
        line = [(w, c) for w in widths if (c := ours.get(CellKey(*where, depth, w))) and not c.differs]
        for same in _by_budget(line):
            x, y = [w for w, _ in same], [cell.accuracy for _, cell in same]
            axes.errorbar(x, y, [cell.spread or 0 for _, cell in same], color=look.color, lw=1.8, capsize=2)
        for w, cell in line:
            mfc = look.color if cell.whole else "white"
            axes.plot(w, cell.accuracy, look.marker, color=look.color, ms=5, mfc=mfc)
            partial |= not cell.whole
            seeds |= {cell.seeds} if cell.spread else set()
        if theirs:
            axes.plot(widths, theirs[depth - 1], "--", marker=look.marker, ms=2.5, color=look.color, lw=1, alpha=0.7)
    run = {key.depth for key, cell in ours.items() if key[:4] == where and not cell.differs}
    of_ours: dict[str, Any] = {"ms": 5, "lw": 2}
    of_paper: dict[str, Any] = {"ms": 2.5, "lw": 1, "ls": "--"}
    handles = [
        Line2D([], [], color=c, marker=marker, label=f"depth {d}", **(of_ours if d in run else of_paper))
        for d, (c, marker) in zip(range(1, 6), looks, strict=True)
        if d in run or theirs
    ]
    if theirs:
        handles.append(Line2D([], [], color="0.4", marker="o", label="the paper", **of_paper))
    if partial:
        handles.append(Line2D([], [], color="0.4", marker="o", mfc="white", ls="", label="another budget"))
    if over := over_seeds(seeds):
        handles.append(
            Line2D([], [], color="0.4", marker="|", ms=9, ls="", label=f"±1 standard deviation\nover {over}")
        )
    named = {str(handle.get_label()): handle for handle in handles}
    figure = axes.get_figure(root=True)
    assert figure
    _legend(figure, axes, named, output)
    axes.set_xscale("log")
    axes.set_xlim(widths[0] / 1.15, widths[-1] * 1.15)
    axes.set_xticks(list(widths), [str(w) for w in widths])
    axes.minorticks_off()
    axes.set_xlabel("width")
    axes.set_ylabel(ours.number.head)


def figure4(ours: Cells, output: Output = SCREEN) -> "Figure | None":
    """Figure 4: accuracy against width on the 2D Cantor set, curve 1, with a line per depth."""
    if not any(k[:4] == ("fractal", "cantor2d", 5, "1") for k in ours):
        return None
    figure, [axes] = _axes(1, 6, 4.2, output)
    _draw_by_depth(
        axes,
        ours,
        ("fractal", "cantor2d", 5, "1"),
        paper()["widths"],
        paper()["figure4"]["values"]["cantor2d"] if ours.number.beside_paper else None,
        output=output,
    )
    axes.set_title("Figure 4: the effect of depth on learning the 2D Cantor set (curve 1)")
    return figure


def figure5(ours: Cells, output: Output = SCREEN) -> "Figure | None":
    """Figure 5: for each curve P at levels 3, 4, 5, and the accuracy of the best network of depth 5.

    The titles say the width of our best network, since the paper's have widths 100 to 400.
    """
    found = _best_of_depth_5(ours)
    best = {int(curve): cell for (name, curve), cell in found.items() if name == "cantor2d" and curve.isdigit()}
    if not best:
        return None
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    beside = ours.number.beside_paper
    figure, panels = _axes(6, 1.9, 3.3 if output.width is None else 2.4, output)
    for curve, theirs, axes in zip(range(1, 7), paper()["figure5"]["cantor2d"], panels, strict=True):
        axes.bar([3, 4, 5], ApproximationCurve.load(curve).P(5)[3:], color="#9db8d2", width=0.7)
        title = [f"curve {curve}"]
        if cell := best.get(curve):
            axes.axhline(cell.accuracy, color=ACCENT, lw=1.8)
            title.append(f"{cell.accuracy:.3f}{'' if cell.whole else '*'} at width {cell.width}")
        if beside:
            axes.axhline(theirs, color="0.35", ls="--", lw=1)
            title.append(f"the paper's {theirs:.3f}")
        axes.set_title("\n".join(title), fontsize=9)
        axes.set_ylim(0.45, 1.02)
        axes.set_xticks([3, 4, 5])
        axes.set_xlabel("level j")
        axes.grid(visible=False)
        if (place := axes.get_subplotspec()) and not place.is_first_col():
            axes.set_yticklabels([])
        else:
            axes.set_ylabel("P(j); accuracy")
    star = "" if all(cell.whole for cell in best.values()) else " (*: another budget)"
    handles: list[Any] = [
        Patch(color="#9db8d2", label="P(j): what a network that resolves $K_j$ can reach"),
        Line2D([], [], color=ACCENT, lw=1.8, label=f"our best network of depth 5{star}"),
    ]
    if beside:
        handles.append(Line2D([], [], color="0.35", ls="--", lw=1, label="the paper's, of widths up to 400"))
    columns = 3 if output.width is None and (output.font or 0) <= 8 else 1
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=output.font or 8)
    figure.suptitle("Figure 5: the best networks of depth 5 on the 2D Cantor set, and the curves", fontsize=10)
    return figure


def _best_of_depth_5(ours: Cells) -> dict[tuple[str, str], CellResult]:
    """The best network of depth 5 on each fractal of depth 5 and curve, by their names."""
    best: dict[tuple[str, str], CellResult] = {}
    for key, cell in ours.items():
        if key.data == "fractal" and key.fractal_depth == 5 and key.depth == 5 and not cell.differs:
            where = (str(key.fractal), str(key.curve))
            if where not in best or cell.accuracy > best[where].accuracy:
                best[where] = cell
    return best


def figure6(ours: Cells, output: Output = SCREEN) -> "Figure | None":
    """Figure 6: accuracy against width on the "fine" Vicsek distribution (curve 4) of depth 6, a line per depth."""
    where = ("fractal", "vicsek", 6, "4")
    if not any(k[:4] == where for k in ours):
        return None
    figure, [axes] = _axes(1, 6, 4.2, output)
    _draw_by_depth(axes, ours, where, paper()["widths"], output=output)
    axes.axhline(0.5, color="0.5", lw=0.8)
    axes.annotate(
        "chance",
        (1, 0.5),
        (-4, -10),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        fontsize=8,
    )
    axes.set_ylim(0.48, max(0.56, *(cell.accuracy + 0.02 for k, cell in ours.items() if k[:4] == where)))
    axes.set_title('Figure 6: the "fine" Vicsek distribution (curve 4) of depth 6')
    return figure


def figure7(ours: Cells, output: Output = SCREEN) -> "Figure | None":
    """Figure 7: accuracy against channels on CIFAR-10, with a line per depth."""
    if not any(k[0] == "cifar10" for k in ours):
        return None
    figure, [axes] = _axes(1, 6, 4.2, output)
    _draw_by_depth(
        axes,
        ours,
        ("cifar10", None, None, None),
        paper()["figure7"]["channels"],
        paper()["figure7"]["values"] if ours.number.beside_paper else None,
        output=output,
    )
    axes.set_xlabel("channels")
    axes.set_title("Figure 7: the effect of depth on learning CIFAR-10")
    return figure


def parameters(ours: Cells, output: Output = SCREEN) -> "Figure | None":
    """Accuracy against the number of parameters on curve 1: a panel per fractal, a line per depth."""
    # The number of parameters is known once a run has ended.
    ours = Cells((c for c in ours.values() if c.params is not None and not c.differs), ours.number)
    found = [f for f in FRACTALS if any(k[:4] == ("fractal", f, 5, "1") and k.depth in range(1, 6) for k in ours)]
    if not found:
        return None
    figure, panels = _axes(len(found), 3.4, 3.2, output)
    for fractal, axes in zip(found, panels, strict=True):
        for depth, (shade, marker) in zip(range(1, 6), ordered(5), strict=True):
            where = ("fractal", fractal, 5, "1", depth)
            points = ((c.params, c) for k, c in ours.items() if c.params is not None and k[:5] == where)
            line = sorted(points, key=lambda point: point[0])
            for same in _by_budget(line):
                x, y = [p for p, _ in same], [cell.accuracy for _, cell in same]
                axes.plot(x, y, "-", color=shade, lw=1.6)
            for i, (p, cell) in enumerate(line):
                mfc = shade if cell.whole else "white"
                label = None if i else f"depth {depth}"
                axes.plot(p, cell.accuracy, marker, color=shade, ms=4.5, mfc=mfc, label=label)
        axes.set_xscale("log")
        axes.set_xlabel("parameters")
        axes.set_title(FRACTALS[fractal])
    panels[0].set_ylabel(ours.number.head)
    lines = {text: line for axes in panels for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    _legend(figure, panels[-1], dict(sorted(lines.items())), output)
    over = over_seeds(cell.seeds for key, cell in ours.items() if key[:4] in {("fractal", f, 5, "1") for f in found})
    mean = f"; means over {over}" if over else ""
    figure.suptitle(f"Parameter utilisation on curve 1 (hollow: another budget{mean})", fontsize=10)
    return figure


def theorem3(ours: Cells, output: Output = SCREEN) -> "Figure | None":
    """Theorem 3: accuracy against P(j), with a panel per level j.

    A point is the best network of depth 5 on a fractal and a curve. The line is the theorem's bound: a network that
    resolves K_j has at least accuracy P(j), on every curve. The theorem asks for cells that are apart (Assumption 1):
    fractals whose cells touch are named, and marked in the legend.
    """
    found = _best_of_depth_5(ours)
    best = {(name, curve): cell for (name, curve), cell in found.items() if name in FRACTALS and curve in CURVES}
    if len({curve for _, curve in best}) < 2:
        return None
    P = {curve: ApproximationCurve.load(int(curve)).P(5) for _, curve in best}
    touching = [f for f in FRACTALS if not AffineIFS.load(f).separation().epsilon]
    figure, panels = _axes(4, 3, 3.1, output)
    for j, axes in enumerate(panels, 1):
        axes.axline((0.5, 0.5), slope=1, color="0.35", lw=1, ls="--", label="Theorem 3: resolves $K_j$")
        for fractal, (shade, _), marker in zip(FRACTALS, lines(4), "^sDo", strict=True):
            points = [(P[curve][j], cell) for (name, curve), cell in best.items() if name == fractal]
            x, y = [p for p, _ in points], [cell.accuracy for _, cell in points]
            label = FRACTALS[fractal] + (" (cells touch)" if fractal in touching else "")
            axes.plot(x, y, marker, color=shade, ms=5, mew=0, alpha=0.85, label=label)
            for p, cell in points:
                if not cell.whole:
                    axes.plot(p, cell.accuracy, marker, color="white", ms=2.5)
        axes.set(xlim=(0.48, 1.02), ylim=(0.48, 1.02), xlabel=f"P({j})")
        if output.width is None:  # else there is no room to lose
            axes.set_aspect("equal")
        axes.set_title(f"level {j}")
    (panels[0].set_ylabel if output.width is None else figure.supylabel)(f"{ours.number.head}, depth 5")
    handles, names = panels[-1].get_legend_handles_labels()
    _legend(figure, panels[-1], dict(zip(names, handles, strict=True)), output)
    title = "Above the line: better than a network that resolves exactly the cells of level j (six curves)"
    title += "" if all(cell.whole for cell in best.values()) else " (hollow: another budget)"
    touch = ", ".join(FRACTALS[f] for f in touching)
    title += f"\nTheorem 3 proves nothing where cells touch, as they break its Assumption 1: {touch}"
    figure.suptitle(title, fontsize=10)
    return figure


def learning_curves(
    runs: "pd.DataFrame",
    most: int = 2000,
    output: Output = SCREEN,
) -> "Figure | None":
    """Test accuracy against steps: the median and the quartiles over widths, learning rates and seeds.

    Panels are for curve 1, with a line per depth, and for depth 5, with a line per curve. They show only runs of the
    largest budget, and of the setting nearest to the paper's.

    Args:
        runs: as ``results.rows.read_runs`` returns it.
        most: of more runs, this many are drawn at random, and the title says so.
    """
    import numpy as np

    runs = runs.query("data == 'fractal' and steps > 0 and status != 'diverged'")
    least = min(runs.to_dict("records"), key=lambda run: (differences(run), run["differs"]), default={"differs": ""})
    runs = runs.loc[runs.differs == least["differs"]]
    runs = runs.query("steps_asked == steps_asked.max()")
    ended = runs.status.isin(ENDED)
    runs = runs.loc[ended] if ended.any() else runs  # a run that stopped early would move the median
    of_all = ""
    if len(runs) > most:
        of_all = f" ({most:,} of {len(runs):,} runs, drawn at random)"
        runs = runs.sample(most, random_state=0).sort_index()
    runs = runs.assign(curve_of=[learning_curve(run) for run in runs.to_dict("records")])
    runs = runs.loc[[len(steps) > 1 for steps, _ in runs.curve_of]]
    sets: list[tuple[str, str, Mapping[Any, Mapping[int, Sequence[float]]]]] = []
    for fractal in runs.fractal.dropna().unique():
        own = runs.loc[runs.fractal == fractal]
        n = own.fractal_depth.mode().iloc[0]
        own = own.query("fractal_depth == @n")
        label = f"{literal(FRACTALS.get(fractal, fractal))}, n={n:g}"
        for by, part, what in (
            ("depth", own.query("curve == '1'"), "curve 1"),
            ("curve", own.query("depth == 5"), "depth 5"),
        ):
            found = {value: carried(part.curve_of[part[by] == value]) for value in sorted(part[by].unique())}
            if len(found) > 1:
                sets.append((f"{label}, {what}", by, found))
    if not sets:
        return None
    figure, panels = _axes(len(sets), 3.6, 3.4, output, most=4)
    looks: dict[str, Line] = {}
    for key in ("curve", "depth"):
        looks |= looks_of(f"{key} {plain_value(value)}" for _, by, found in sets if by == key for value in found)
    named: dict[str, Any] = {}  # one legend for all panels
    for (title, by, found), axes in zip(sets, panels, strict=False):
        for value, at in found.items():
            name = f"{by} {plain_value(value)}"
            shade, marker = looks[name]
            x = list(at)
            low, middle, high = np.array([np.quantile(accuracies, (0.25, 0.5, 0.75)) for accuracies in at.values()]).T
            axes.fill_between(x, low, high, color=shade, alpha=0.15, lw=0)
            every = max(1, len(x) // 6)
            style = {"color": shade, "marker": marker, "markevery": every, "ms": 4, "lw": 1.6}
            [drawn] = axes.plot(x, middle, **style)
            named.setdefault(name, drawn)
        axes.set_title(title)
        axes.set_xlabel("optimizer steps")
        axes.xaxis.set_major_formatter(thousands)
        axes.set_ylabel("test accuracy")
    place = "outside right center" if output.width is None else "outside lower center"
    columns = 1 if output.width is None else columns_of(list(looks), output, 3)
    labels = [literal(name) for name in looks]
    figure.legend([named[name] for name in looks], labels, fontsize=output.font or 8, loc=place, ncols=columns)
    ended = CARRIED if len({tuple(steps) for steps, _ in runs.curve_of}) > 1 else ""
    title = "Learning curves: median and quartiles over widths, learning rates and seeds"
    figure.suptitle(title + of_all + ended, fontsize=10)
    return figure

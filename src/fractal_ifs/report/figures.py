"""Figures 4 to 6 as the paper draws them, ours beside the paper's; accuracy against parameters; learning curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractal_ifs.files import write
from fractal_ifs.fractals.curve import ApproximationCurve
from fractal_ifs.report.tables import CURVES, FRACTALS, lookup, paper
from fractal_ifs.results.rows import ENDED, learning_curve

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(runs: "pd.DataFrame", cells: "pd.DataFrame", directory: Path) -> list[Path]:
    """Draw every figure that some cell belongs to, as PNG; returns the files."""
    import io

    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    style = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "font.size": 9,
    }
    style |= {"legend.frameon": False, "axes.axisbelow": True, "axes.titlesize": 10}
    ours = lookup(cells)
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(style):  # pyright: ignore[reportArgumentType]
        figures = {
            "figure4": figure4(ours),
            "figure5": figure5(ours),
            "figure6": figure6(ours),
            "figure7": figure7(ours),
            "parameters": parameters(ours),
            "theorem3": theorem3(ours),
            "learning_curves": learning_curves(runs),
        }
        for name, figure in figures.items():
            if figure is not None:
                FigureCanvasAgg(figure)
                buffer = io.BytesIO()
                figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
                small = io.BytesIO()  # 64 colours: a third of the bytes
                Image.open(buffer).convert("RGB").quantize(64).save(small, "PNG", optimize=True)
                write(directory / f"{name}.png", small.getvalue())
                written.append(directory / f"{name}.png")
    return written


def colours(n: int) -> Sequence[Any]:
    import matplotlib as mpl

    return [mpl.colormaps["viridis"](i / max(n - 1, 1) * 0.87) for i in range(n)]


def _axes(columns: int, width: float = 4.6, height: float = 3.6, rows: int = 1) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def of_one_budget(line: Sequence[tuple[Any, Mapping]]) -> list[list[tuple[Any, Mapping]]]:
    """The points of a line by their budget: one drawn through several would fall where the budget does."""
    return [[p for p in line if p[1]["budget"] == b] for b in sorted({row["budget"] for _, row in line})]


def by_depth(axes: "Axes", ours: Mapping, key: tuple, widths: Sequence[int], theirs: Any = None) -> None:
    """Accuracy against width, a line per depth: ours solid with the spread over seeds, the paper's dashed."""
    from matplotlib.lines import Line2D

    shades = colours(5)
    partial = False
    for depth, shade in zip(range(1, 6), shades, strict=True):
        line = [(w, row) for w in widths if (row := ours.get((*key, depth, w))) and not row["differs"]]
        if line:
            for same in of_one_budget(line):
                x, rows = [w for w, _ in same], [row for _, row in same]
                y, spread = [r["accuracy"] for r in rows], [r["spread"] or 0 for r in rows]
                axes.errorbar(x, y, spread, color=shade, lw=1.8, capsize=2)
            for w, row in line:
                axes.plot(w, row["accuracy"], "o", color=shade, ms=5, mfc=shade if row["whole"] else "white")
                partial |= not row["whole"]
        if theirs:
            axes.plot(widths, theirs[depth - 1], "--", color=shade, lw=1, alpha=0.7)
    handles = [Line2D([], [], color=s, lw=2, label=f"depth {d}") for d, s in zip(range(1, 6), shades, strict=True)]
    if theirs:
        handles.append(Line2D([], [], color="0.4", ls="--", lw=1, label="the paper"))
    if partial:
        handles.append(Line2D([], [], color="0.4", marker="o", mfc="white", ls="", label="another budget"))
    axes.legend(handles=handles, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xscale("log")
    axes.set_xlim(widths[0] / 1.15, widths[-1] * 1.15)
    axes.set_xticks(list(widths), [str(w) for w in widths])
    axes.minorticks_off()
    axes.set_xlabel("width")
    axes.set_ylabel("best test accuracy")


def figure4(ours: Mapping) -> "Figure | None":
    if not any(k[:4] == ("fractal", "cantor2d", 5, "1") for k in ours):
        return None
    figure, [axes] = _axes(1, 6, 4.2)
    by_depth(axes, ours, ("fractal", "cantor2d", 5, "1"), paper()["widths"], paper()["figure4"]["values"]["cantor2d"])
    axes.set_title("Figure 4: the effect of depth on learning the 2D Cantor set (curve 1)")
    return figure


def figure5(ours: Mapping) -> "Figure | None":
    """Six panels: P at levels 3, 4, 5, and the accuracy of the best network of depth 5."""

    best: dict[int, dict[str, Any]] = {}  # its width is said: the paper's are of widths 100 to 400
    for key, row in ours.items():
        if key[:3] == ("fractal", "cantor2d", 5) and key[4] == 5 and key[3].isdigit() and not row["differs"]:
            curve = int(key[3])
            if curve not in best or row["accuracy"] > best[curve]["accuracy"]:
                best[curve] = row
    if not best:
        return None
    figure, panels = _axes(6, 1.9, 3)
    for curve, theirs, axes in zip(range(1, 7), paper()["figure5"]["cantor2d"], panels, strict=True):
        axes.bar([3, 4, 5], ApproximationCurve.load(curve).P(5)[3:], color="#9db8d2", width=0.7)
        axes.axhline(theirs, color="0.35", ls="--", lw=1)
        label = f"paper {theirs:.3f}"
        if row := best.get(curve):
            axes.axhline(row["accuracy"], color="#c62828", lw=1.8)
            label = f"ours {row['accuracy']:.3f}{'' if row['whole'] else '*'} (width {row['width']})\n{label}"
        axes.set_title(f"curve {curve}\n{label}", fontsize=9)
        axes.set_ylim(0.45, 1.02)
        axes.set_xticks([3, 4, 5])
        axes.set_xlabel("level j")
        axes.grid(visible=False)
        if curve > 1:
            axes.set_yticklabels([])
    panels[0].set_ylabel("P(j); accuracy")
    star = "" if all(row["whole"] for row in best.values()) else "  (*: another budget)"
    figure.suptitle(
        "Figure 5: bars P(j), red the best network of depth 5 on the 2D Cantor set, dashed the paper's of widths to 400"
        f"{star}",
        fontsize=10,
    )
    return figure


def figure6(ours: Mapping) -> "Figure | None":
    if not any(k[:4] == ("fractal", "vicsek", 6, "4") for k in ours):
        return None
    figure, [axes] = _axes(1, 6, 4.2)
    by_depth(axes, ours, ("fractal", "vicsek", 6, "4"), paper()["widths"])
    axes.axhline(0.5, color="0.5", lw=0.8)
    axes.set_ylim(0.45, 1)
    axes.set_title('Figure 6: the "fine" Vicsek distribution (curve 4) of depth 6')
    return figure


def figure7(ours: Mapping) -> "Figure | None":
    if not any(k[0] == "cifar10" for k in ours):
        return None
    figure, [axes] = _axes(1, 6, 4.2)
    by_depth(axes, ours, ("cifar10", None, None, None), paper()["figure7"]["channels"], paper()["figure7"]["values"])
    axes.set_xlabel("channels")
    axes.set_title("Figure 7: the effect of depth on learning CIFAR-10")
    return figure


def parameters(ours: Mapping) -> "Figure | None":
    """Accuracy against the number of parameters on curve 1, a line per depth."""
    import pandas as pd

    ours = {k: r for k, r in ours.items() if pd.notna(r["params"])}  # a run says it when it ends
    found = [f for f in FRACTALS if any(k[:4] == ("fractal", f, 5, "1") for k in ours)]
    if not found:
        return None
    figure, panels = _axes(len(found), 3.4, 3.2)
    for fractal, axes in zip(found, panels, strict=True):
        for depth, shade in zip(range(1, 6), colours(5), strict=True):
            rows = [r for k, r in ours.items() if k[:5] == ("fractal", fractal, 5, "1", depth) and not r["differs"]]
            line = sorted(((r["params"], r) for r in rows), key=lambda point: point[0])
            for i, same in enumerate(of_one_budget(line)):
                x, y = [p for p, _ in same], [r["accuracy"] for _, r in same]
                axes.plot(x, y, "-", color=shade, label=None if i else f"depth {depth}", lw=1.6)
            for p, r in line:
                axes.plot(p, r["accuracy"], "o", color=shade, ms=4, mfc=shade if r["whole"] else "white")
        axes.set_xscale("log")
        axes.set_xlabel("parameters")
        axes.set_title(FRACTALS[fractal])
    panels[0].set_ylabel("best test accuracy")
    panels[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle("Parameter utilisation on curve 1 (hollow: another budget)", fontsize=10)
    return figure


def theorem3(ours: Mapping) -> "Figure | None":
    """Accuracy against P(j), a panel per level j: a network that resolves K_j has at least P(j), on every curve.

    The points: per fractal and curve the best network of depth 5; the line: Theorem 3's bound.
    """

    best: dict[tuple[str, str], dict[str, Any]] = {}
    for key, row in ours.items():
        if key[0] == "fractal" and key[1] in FRACTALS and key[2] == 5 and key[4] == 5 and not row["differs"]:
            where = (str(key[1]), str(key[3]))
            if where[1] in CURVES and (where not in best or row["accuracy"] > best[where]["accuracy"]):
                best[where] = row
    if len({curve for _, curve in best}) < 2:
        return None
    P = {curve: ApproximationCurve.load(int(curve)).P(5) for _, curve in best}
    figure, panels = _axes(4, 3, 3.1)
    for j, axes in enumerate(panels, 1):
        axes.axline((0.5, 0.5), slope=1, color="0.35", lw=1, ls="--", label="Theorem 3: resolves $K_j$")
        for fractal, shade, marker in zip(FRACTALS, colours(4), "^sDo", strict=True):
            found = [(P[curve][j], row) for (name, curve), row in best.items() if name == fractal]
            x, y = [p for p, _ in found], [row["accuracy"] for _, row in found]
            axes.plot(x, y, marker, color=shade, ms=5, mew=0, alpha=0.85, label=FRACTALS[fractal])
            for (name, curve), row in best.items():
                if name == fractal and not row["whole"]:
                    axes.plot(P[curve][j], row["accuracy"], marker, color="white", ms=2.5)
        axes.set(xlim=(0.48, 1.02), ylim=(0.48, 1.02), aspect="equal", xlabel=f"P({j})")
        axes.set_title(f"level {j}")
    panels[0].set_ylabel("best test accuracy, depth 5")
    panels[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    title = "Above the line: better than a network that resolves exactly the cells of level j (six curves)"
    figure.suptitle(
        title + ("" if all(row["whole"] for row in best.values()) else " (hollow: another budget)"), fontsize=10
    )
    return figure


def learning_curves(runs: "pd.DataFrame", most: int = 2000) -> "Figure | None":
    """Median test accuracy against steps with the band between the quartiles, over widths, learning rates and seeds.

    Runs of the largest budget alone, and of the setting that is nearest to the paper's; on curve 1 by depth, and for
    depth 5 by curve. Of more than ``most`` runs as many are drawn at random, and the title says so.
    """
    import numpy as np

    runs = runs.query("data == 'fractal' and steps > 0")
    runs = runs.loc[runs.differs == min(runs.differs, key=lambda text: (len(text), text), default="")]
    runs = runs.query("steps_asked == steps_asked.max()")
    ended = runs.status.isin(ENDED)
    runs = runs.loc[ended] if ended.any() else runs  # a run that stops on the way would move the median
    of_all = ""
    if len(runs) > most:
        of_all = f" ({most:,} of {len(runs):,} runs, drawn at random)"
        runs = runs.sample(most, random_state=0).sort_index()
    runs = runs.assign(curve_of=[learning_curve(run) for run in runs.to_dict("records")])
    runs = runs.loc[[len(steps) > 1 for steps, _ in runs.curve_of]]
    sets = []
    for fractal in runs.fractal.dropna().unique():
        own = runs.loc[runs.fractal == fractal]
        n = own.fractal_depth.mode().iloc[0]
        own = own.query("fractal_depth == @n")
        label = f"{FRACTALS.get(fractal, fractal)}, n={n:g}"
        for by, part, what in (
            ("depth", own.query("curve == '1'"), "curve 1"),
            ("curve", own.query("depth == 5"), "depth 5"),
        ):
            if part[by].nunique() > 1:
                sets.append((f"{label}, {what}", by, part))
    if not sets:
        return None
    columns = min(4, len(sets))
    figure, panels = _axes(columns, 3.6, 3.4, -(-len(sets) // columns))
    for axes in panels[len(sets) :]:
        axes.set_visible(False)
    for (title, by, part), axes in zip(sets, panels, strict=False):
        values = sorted(part[by].unique())
        for value, shade in zip(values, colours(len(values)), strict=True):
            at: dict[int, list[float]] = {}
            group = part.loc[part[by] == value]
            for steps, accuracies in group.curve_of:
                for step, accuracy in zip(steps, accuracies, strict=True):
                    at.setdefault(step, []).append(accuracy)
            x = sorted(step for step, found in at.items() if len(found) >= len(group) / 2)
            low, middle, high = np.array([np.quantile(at[step], (0.25, 0.5, 0.75)) for step in x]).T
            axes.fill_between(x, low, high, color=shade, alpha=0.15, lw=0)
            axes.plot(x, middle, color=shade, lw=1.6, label=f"{by} {value}")
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.set_ylabel("test accuracy")
        axes.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    figure.suptitle("Learning curves: median and quartiles over widths, learning rates and seeds" + of_all, fontsize=10)
    return figure

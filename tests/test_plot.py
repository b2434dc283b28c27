import copy
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small
from letters import wrongly_set
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

import fractal_ifs
from fractal_ifs import plot
from fractal_ifs.config.compose import compose
from fractal_ifs.config.fractal import Curve, Fractal
from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.distribution import FractalDistribution
from fractal_ifs.plotting import style
from fractal_ifs.plotting.distributions import draw_distributions
from fractal_ifs.plotting.networks import draw_network
from fractal_ifs.runs.load import Finished
from fractal_ifs.runs.records import RunRecord, Status


def samples_of(*laws, **keys) -> Any:
    return draw_distributions(laws, **keys)


def learned(*arguments, **keys) -> Any:
    return draw_network(*arguments, **keys)


def axes_titled(figure, start) -> Any:
    [found] = [axes for axes in figure.axes if axes.get_title().startswith(start)]
    return found


def drawn(axes, kind) -> list[Any]:
    return [collection for collection in axes.collections if isinstance(collection, kind)]


def area(polygons):
    x, y = np.moveaxis(np.array([path.vertices[:-1] for path in polygons.get_paths()]), -1, 0)
    return np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1) / 2).sum()


def test_charts_look_alike_and_no_other_setting_is_set_back():
    """A notebook's first figure makes matplotlib interactive, also where it is drawn so."""
    before = {**mpl.rcParams}
    try:
        with style.drawing():
            assert not mpl.rcParams["axes.spines.top"]
            mpl.rcParams["interactive"] = True
        assert {name for name, value in mpl.rcParams.items() if value != before[name]} == {"interactive"}
    finally:
        mpl.rcParams["interactive"] = before["interactive"]


@pytest.mark.parametrize("name", ["vicsek", "sierpinski_triangle", "cantor2d"])
def test_panels_show_the_sets_samples_and_curves_themselves(name):
    laws = [FractalDistribution(name, curve, depth=3) for curve in (1, 6)]
    figure = samples_of(*laws, points=500, seed=3)
    for j in range(4):
        polygons = drawn(axes_titled(figure, f"$K_{{{j}}}$"), PolyCollection)
        blue = [c for c in polygons if tuple(c.get_facecolor()[0]) == to_rgba(style.BLUE)]
        assert sum(map(area, blue)) == pytest.approx(laws[0].volume(j), rel=1e-6)
    for law, number in zip(laws, (1, 6), strict=True):
        [dots] = drawn(axes_titled(figure, f"curve {number}"), PathCollection)
        x, y, _ = law.sample(500, seed=3)
        np.testing.assert_allclose(dots.get_offsets(), x)
        colors = [to_rgba(style.BLUE if label > 0 else style.ORANGE) for label in y]
        np.testing.assert_allclose(dots.get_facecolor(), colors)
    lines = axes_titled(figure, "the accuracy").get_lines()
    for law, line in zip(laws, lines, strict=True):
        np.testing.assert_allclose(line.get_ydata(), law.approximation_curve())


def test_the_negatives_of_every_level_are_drawn_however_fine():
    """Those of K_5 were left out where they were narrower than three pixels: with curve 6 they are all there are."""
    for name in ("vicsek", "cantor2d"):
        figure = samples_of(FractalDistribution(name, 6), points=50)
        for j in range(1, 6):
            axes = axes_titled(figure, f"$K_{{{j}}}$")
            polygons = drawn(axes, PolyCollection)
            [orange] = [c for c in polygons if tuple(c.get_facecolor()[0]) == to_rgba(style.ORANGE)]
            [blue] = [c for c in polygons if tuple(c.get_facecolor()[0]) == to_rgba(style.BLUE)]
            side = float(np.median([np.ptp(path.vertices[:, 0]) for path in blue.get_paths()]))
            pixels = 150 * figure.get_figwidth() / 6 * side / np.ptp(axes.get_xlim())  # of a cell, at 150 dpi
            assert pixels > 2.8, (name, j)
            assert len(orange.get_paths()) > 0


@pytest.mark.parametrize("name", ["vicsek", "cantor2d_quarter"])
def test_a_panel_of_one_cell_has_all_of_its_frame_and_nothing_of_the_cells_beside(name):
    figure = samples_of(FractalDistribution(name, 1), points=50)
    figure.set_dpi(400)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3]
    panels = [axes for axes in figure.axes if "in a cell" in axes.get_title()]
    assert len(panels) > 1
    for axes in panels:
        [path] = drawn(axes, PolyCollection)[0].get_paths()
        corners, box = axes.transData.transform(path.vertices), axes.bbox
        assert (corners > [box.x0, box.y0]).all()
        assert (corners < [box.x1, box.y1]).all()
        y, x = np.indices(pixels.shape[:2]) + 0.5
        panel = (x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)
        (x0, y0), (x1, y1) = corners.min(0) - 3, corners.max(0) + 3
        beside = panel & ((x < x0) | (x > x1) | (y < y0) | (y > y1))
        assert beside.sum() > 1000
        assert (pixels[beside] == 255).all()


def test_a_legend_says_what_blue_and_orange_are_and_axes_have_names():
    figure = samples_of(FractalDistribution("vicsek", 1), points=50)
    [legend] = figure.legends
    assert [text.get_text().split(":")[0] for text in legend.get_texts()] == ["positive", "negative"]
    axes = axes_titled(figure, "curve 1")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$x_1$", "$x_2$")


def test_a_picture_has_the_width_and_the_letters_that_are_asked_for(tmp_path):
    words = ["points=50", "fractal.depth=2", f"out={tmp_path}", "formats=[png]", "dpi=100"]
    from PIL import Image

    [path] = plot.write_pictures([*words, "width=3.3", "font=7"])
    with Image.open(path) as image:
        assert image.size[0] == 330
    figure = samples_of(FractalDistribution("vicsek", 1, 2), points=50)
    style.fit(figure, style.Output(width=3.3, font=7))
    assert {text.get_fontsize() for text in figure.findobj(Text) if text.get_text()} == {7}
    for given, least in (
        ("width=2", "2.4 for letters of 8 points"),
        ("width=3.3 font=12", "3.6 for letters of 12"),
        ("width=1.9 font=3", "2 for letters of 3"),
    ):
        with pytest.raises(ConfigError, match=rf"^width=\S+: must be at least {least}"):
            plot.write_pictures([*words, *given.split()])
    for key, wrong in (("width", "0.1"), ("font", "x"), ("font", "100")):
        with pytest.raises(ConfigError, match=f"^{key}={wrong}: must be "):
            plot.write_pictures([*words, f"{key}={wrong}"])


@pytest.mark.parametrize("width", [None, 3.3])
def test_letters_that_the_font_lacks_are_boxes_without_a_warning(tmp_path, width):
    """A warning is an error here. Nor do they make a picture higher, as a layout without room would."""
    heights = set()
    for name in ("漢字", "ab"):
        figure = Figure(layout="constrained")
        figure.add_subplot().set(title=name, xlabel=name)
        style.write_figure(figure, tmp_path, name, style.Output(style.FORMATS, width))
        heights.add(figure.get_figheight())
        assert len(list(tmp_path.glob(f"{name}.*"))) == 3
    assert len(heights) == 1


@pytest.mark.parametrize(
    ("width", "font"),
    [
        (3.3, None),
        (2.0, 6.6),
        *(pytest.param(*size, marks=pytest.mark.slow) for size in ((3.6, 12), (None, None), (2.4, None), (None, 12))),
    ],
)
@pytest.mark.parametrize("what", ["of one", "of six", "on a line", "learned"])
def test_no_letters_are_cut_off_or_over_others_at_the_edge_of_what_is_allowed(width, font, what):
    output = style.Output(width=width, font=font)
    style.check_letters(output)
    if what == "learned":
        run = finished({"name": "dust", "d": 2, "ratio": "1/3", "corners": "2/3"}, HalfPlane())
        figure = draw_network(run, pixels=30, output=output)
    else:
        laws = {
            "of one": [("vicsek", 3)],
            "of six": [("cantor2d", c) for c in range(1, 7)],
            "on a line": [("cantor", 1)],
        }
        figure = samples_of(*(FractalDistribution(*law) for law in laws[what]), points=50, output=output)
    style.fit(figure, output)
    assert wrongly_set(figure) == []


@pytest.mark.parametrize(("width", "font"), [(3.3, 8), (5, None), (2.4, None), (3.3, 11), (7, 9)])
def test_a_narrow_picture_of_distributions_has_its_panels_in_rows(width, font):
    """No text over another or over a panel, no legend over the curves; a warning of the layout is an error."""
    output = style.Output(width=width, font=font)
    figure = samples_of(FractalDistribution("vicsek", 1), FractalDistribution("vicsek", 4), points=50, output=output)
    style.fit(figure, output)
    FigureCanvasAgg(figure).draw()
    assert figure.get_figwidth() == pytest.approx(width)
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert min(box.width for box in boxes) > 0.5 * figure.dpi
    curves = axes_titled(figure, "the accuracy")
    titles = [axes.title.get_window_extent() for axes in figure.axes]
    suptitle = figure.texts[0].get_window_extent()
    legends = [curves.get_legend().get_window_extent(), figure.legends[0].get_window_extent()]
    said = [suptitle, *titles, *legends]
    for i, text in enumerate(said):
        assert not [box for box in boxes if box.overlaps(text)]
        assert not [other for other in said[:i] if other.overlaps(text)]
    assert {text.get_fontsize() for text in figure.findobj(Text) if text.get_text()} == {font or 8}


@pytest.mark.parametrize(("width", "font", "window"), [(3.3, 7, [-1, 1, -1, -0.7]), (3.3, 9, None), (None, 12, None)])
def test_a_picture_does_not_grow_for_panels_that_would_not(width, font, window):
    output = style.Output(width=width, font=font)
    part = None if window is None else np.array(window)
    figure = samples_of(FractalDistribution("vicsek", 1), points=50, window=part, output=output)
    before = figure.get_figheight()
    style.fit(figure, output)
    assert figure.get_figheight() <= 1.5 * before  # not twice: a version of matplotlib leaves another room for titles
    assert wrongly_set(figure) == []


def test_a_panel_of_a_fixed_aspect_grows_where_it_lacks_height():
    figure = Figure(figsize=(4, 1), layout="constrained")
    axes = figure.add_subplot(aspect="equal", xlabel="x")
    style.fit(figure, style.Output(font=9))
    assert axes.get_window_extent().height >= 6 * 9 / 72 * figure.dpi
    assert figure.get_figheight() < 2


def test_a_picture_grows_to_twice_its_height_at_most():
    figure = Figure(figsize=(6, 2), layout="constrained")
    for axes in figure.subplots(8, 1):
        axes.set_title("what no height has room for " * 20)
    style.fit(figure, style.Output(font=12))
    assert figure.get_figheight() == 4


@pytest.mark.parametrize("digits", [4, 6])
def test_an_axis_with_fewer_names_keeps_its_ends(digits):
    """And, where other places have room, the names of what is shown later."""
    figure = Figure(figsize=(2, 2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0.05, 9.7], [1, 2])
    axes.set_xlim(0.05, 9.7)
    axes.xaxis.set_major_formatter(f"{{x:.{digits}f}}")
    style.fit(figure, style.Output(width=2, font=8))
    assert axes.get_xlim() == (0.05, 9.7)
    assert wrongly_set(figure) == []
    if digits == 4:
        axes.set_xlim(20, 30)
        figure.draw_without_rendering()
        named = [float(label.get_text()) for label in axes.get_xticklabels()]
        assert named == pytest.approx(list(axes.get_xticks()))
        assert min(named) >= 18


def test_letters_shrink_once_where_a_picture_is_made_narrower():
    figure = Figure(figsize=(6, 4), layout="constrained")
    with style.drawing():
        axes = figure.add_subplot(xlabel="steps", ylabel="accuracy")
    axes.plot([0, 1], [0, 1])
    style.fit(figure, style.Output(width=3.3))
    figure.draw_without_rendering()
    names = [*axes.get_xticklabels(), *axes.get_yticklabels()]
    assert {text.get_fontsize() for text in names} == {axes.xaxis.label.get_fontsize()} == {9 * (3.3 / 6) ** 0.5}


@pytest.mark.parametrize("width", [2, 2.4])
def test_no_line_ends_within_a_formula(width):
    run = finished({"name": "dust", "d": 4, "ratio": "1/3", "corners": "2/3"}, HalfPlane())
    figure = learned(run, pixels=20, output=style.Output(width=width))
    axes = axes_titled(figure, "blue: it")
    before = axes.get_title()
    axes.set_xlabel(
        style.literal("costs $5 and $6, and the name of it is a long one too ") + "$x_{12} = \\alpha$, $y - 1$"
    )
    style.fit(figure, style.Output(width=width, font=6.6))
    assert axes.get_title().split() == before.split()
    for line in [*axes.get_title().split("\n"), *axes.get_xlabel().split("\n")]:
        assert line.replace(r"\$", "").count("$") % 2 == 0, line
        assert not line.endswith("\\")
    assert "\n" in axes.get_xlabel()
    assert wrongly_set(figure) == []


def test_a_network_of_ones_own_is_named_by_its_class(monkeypatch):
    run = finished({"name": "dust", "d": 2, "ratio": "1/3", "corners": "2/3"}, HalfPlane())
    assert ": 1 hidden layers of 1 units after " in learned(run, pixels=20).get_suptitle()
    monkeypatch.setattr(type(run.config), "targets", {"model._target_": "nets.Siren"})
    assert ": nets.Siren of depth 1 and width 1 after 300 steps" in learned(run, pixels=20).get_suptitle()


def test_panels_beside_each_other_have_titles_of_their_own_width():
    """Of K_4 and K_5, whose cells are too fine, a cell is shown."""
    figure = samples_of(FractalDistribution("vicsek", 1), points=50)
    assert [axes.get_title() for axes in figure.axes if "in a cell" in axes.get_title()]
    assert wrongly_set(figure) == []


def test_a_run_with_one_evaluation_shows_it():
    run = finished({"name": "dust", "d": 2, "ratio": "1/3", "corners": "2/3"}, HalfPlane())
    run = run._replace(history=run.history[:1])
    lines = axes_titled(learned(run, pixels=20), "test accuracy").get_lines()
    [seen] = [line for line in lines if list(line.get_xdata()) == [100]]
    assert seen.get_marker() == "o"


def test_one_and_three_dimensions_have_pictures():
    line = samples_of(FractalDistribution("cantor", 4, 4), points=300)
    [dots] = drawn(axes_titled(line, "curve 4"), PathCollection)
    x, _, level = FractalDistribution("cantor", 4, 4).sample(300)
    offsets = np.asarray(dots.get_offsets())
    np.testing.assert_allclose(offsets[:, 0], x[:, 0])
    np.testing.assert_array_equal(np.round(-offsets[:, 1]), level)  # a lane per level
    config = {"name": "dust", "d": 3, "ratio": "1/3", "corners": "2/3"}
    space = samples_of(FractalDistribution(config, 1, 4), points=300)
    assert [axes.get_title() for axes in space.axes[:4]] == [f"$K_{{{j}}}$" for j in range(4)]  # K_4: 4096 cells
    assert "$K_{4}$ and finer" in space.get_suptitle()


def test_a_window_is_filled_with_samples_of_its_own():
    window = np.array([0.34, 0.55, 0.78, 1.0])
    figure = samples_of(FractalDistribution("vicsek", 4), points=1000, window=window)
    [dots] = drawn(axes_titled(figure, "curve 4, 1,000 points"), PathCollection)
    offsets = np.asarray(dots.get_offsets())
    assert len(offsets) == 1000
    assert (offsets >= window[::2] - 1e-6).all()
    assert (offsets <= window[1::2] + 1e-6).all()


def test_a_window_without_a_sample_is_an_empty_panel():
    figure = samples_of(FractalDistribution("vicsek", 4), window=np.array([5.0, 6.0, 5.0, 6.0]))
    assert axes_titled(figure, "curve 4, 0 points")


def finished(fractal, model, depth=2) -> Any:
    groups = {"fractal": Fractal.parse({**fractal, "depth": depth}), "curve": Curve.parse({"name": "1", "degree": 0})}
    config = replace(small(depth=1, width=1, steps=300), **groups)
    measured = {"best_test_acc": 0.8, "best_step": 200, "final_test_acc": 0.7, "steps": 300}
    history = pd.DataFrame({"step": [100, 200, 300], "test_acc": [0.6, 0.8, 0.7]})
    found = Finished(RunRecord.of(config, Status.FINISHED, **measured), history, config, model)
    found.step, found.accuracy = 300, 0.7
    return found


class HalfPlane(torch.nn.Module):
    """sign(x_1 - 0.2137): a decision that can be told pixel by pixel."""

    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(self.slope.weight)

    def forward(self, x):
        return self.slope(x[:, :1] - 0.2137)[:, 0]


@pytest.mark.parametrize("window", [None, np.array([-1.0, 0.6, -1.0, 0.0])])
def test_decision_regions_pixel_by_pixel(window):
    fractal = {"name": "dust", "d": 2, "ratio": "1/3", "corners": "2/3"}
    figure = learned(finished(fractal, HalfPlane()), window, pixels=90)
    [image] = figure.axes[0].images
    x0, x1, y0, y1 = (-1, 1, -1, 1) if window is None else window
    np.testing.assert_allclose(image.get_extent(), (x0, x1, y0, y1))
    x, y = np.meshgrid(*[a + (np.arange(90) + 0.5) / 90 * (b - a) for a, b in ((x0, x1), (y0, y1))])
    level = FractalDistribution(fractal, 1, 2).level(np.stack([x, y], -1).reshape(-1, 2)).numpy().reshape(90, 90)
    colors = image.cmap(image.norm(image.get_array()))
    for said, in_K, color in (
        (x > 0.2137, level == 2, style.BLUE),
        (x > 0.2137, level < 2, style.PALE_BLUE),
        (x < 0.2137, level == 2, style.ORANGE),
        (x < 0.2137, level < 2, style.PALE_ORANGE),
    ):
        pixels = colors[said & in_K]
        assert len(pixels) > 0
        np.testing.assert_allclose(pixels, np.broadcast_to(to_rgba(color), pixels.shape))


def test_regions_of_a_run_in_three_dimensions_are_a_slice():
    fractal = {"name": "dust", "d": 3, "ratio": "1/3", "corners": "2/3"}
    through = learned(finished(fractal, HalfPlane()), pixels=60)
    [image] = through.axes[0].images
    assert {0, 1, 2, 3} == set(np.unique(image.get_array()))  # the default plane meets K_n
    beside = learned(finished(fractal, HalfPlane()), at=np.array([0.0]), pixels=60)
    [image] = beside.axes[0].images
    assert set(np.unique(image.get_array())) == {0, 1}  # x_3 = 0 doesn't
    assert "x_{3} = 0" in beside.axes[0].get_title()


def test_history_has_every_evaluation_and_the_levels_of_P():
    figure = learned(finished({"name": "cantor", "base": "unit", "ratio": 0.2, "offsets": [[0], [0.8]]}, HalfPlane()))
    axes = axes_titled(figure, "test accuracy; P(j): with $K_j$ resolved")
    lines = [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in axes.get_lines()]
    assert ([100, 200, 300], [0.6, 0.8, 0.7]) in lines
    assert ([200], [0.8]) in lines
    assert {"P(0)", "P(1)", "P(2)", "best 0.8000"} <= {text.get_text() for text in axes.texts}
    output = figure.axes[0].get_lines()[-1]
    np.testing.assert_allclose(output.get_ydata(), np.asarray(output.get_xdata()) - 0.2137, atol=1e-6)


@pytest.mark.parametrize("accuracy", [[], [float("nan")]])
def test_a_run_that_diverged_at_once_still_has_a_picture(accuracy):
    run = finished({"name": "dust", "d": 2, "ratio": "1/3", "corners": "2/3"}, HalfPlane())
    with torch.no_grad():
        run.model.slope.weight.fill_(torch.nan)
    history = pd.DataFrame({"step": [100] * len(accuracy), "test_acc": accuracy}, dtype=float)
    record = replace(run.record, status=Status.DIVERGED, best_test_acc=0.0, best_step=0, final_test_acc=0.0)
    run = run._replace(history=history, record=record)
    run.step, run.accuracy = record.steps, None
    figure = learned(run, pixels=20)
    [image] = figure.axes[0].images
    assert (image.get_array() == 4).all()
    assert figure.get_suptitle().endswith("steps, where it diverged")
    assert not [text for axes in figure.axes for text in axes.texts if "best" in text.get_text()]
    line = finished({"name": "cantor", "base": "unit", "ratio": 0.2, "offsets": [[0], [0.8]]}, run.model)
    assert np.isnan(learned(line).axes[0].get_lines()[-1].get_ydata()).all()


def test_the_command_line_draws_a_list_of_curves_into_one_picture(tmp_path):
    arguments = ["fractal=sierpinsky,cantor", "fractal.depth=2", "curve=polynomial", "curve.degree=1,3", "points=50"]
    written = plot.write_pictures([*arguments, f"out={tmp_path}", "dpi=30"])
    stems = [f"{fractal}-n2-curvepolynomial_1__polynomial_3_" for fractal in ("sierpinsky", "cantor")]
    assert [path.name for path in written] == [f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")]
    assert all(path.stat().st_size > 3000 for path in written)
    assert sorted(tmp_path.iterdir()) == sorted(written)  # and no temporary file


def test_the_same_picture_has_the_same_bytes(tmp_path):
    before, after = (
        plot.write_pictures(["points=50", "fractal.depth=2", "dpi=30", f"out={tmp_path / place}"])
        for place in ("a", "b")
    )
    assert [path.read_bytes() for path in before] == [path.read_bytes() for path in after]


def test_a_fractal_of_ones_own_from_a_directory(tmp_path):
    (tmp_path / "fractal").mkdir()
    (tmp_path / "fractal" / "mine.yaml").write_text(
        "name: mine\ndepth: 2\nratio: 1/4\noffsets: [[-1/2, 0], [1/2, 0]]\n"
    )
    [path] = plot.write_pictures(
        ["--config-dir", str(tmp_path), "fractal=mine", "points=50", "formats=[svg]", f"out={tmp_path / 'out'}"]
    )
    assert path.name == "mine-n2-curve1.svg"
    assert path.read_text().lstrip().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fractal=viksek"], "fractal=viksek: .*did you mean vicsek"),
        (["curve=1,9"], "curve=9: "),
        (["curve=polynomial"], r"curve.degree=\?\?\?: must be given"),
        (["margin=???"], r"margin=\?\?\?: this key has no default"),
        (["points=interval(1,9)"], r"points=interval\(1,9\): must be separate values"),
        (["points=0"], "points=0: must be a whole number >= 1"),
        (["width=100"], "width=100: must be a finite number >= 1 and <= 40, or null"),
        (["window=[1,0,0,1]"], r"window=\[1, 0, 0, 1\]: must be \[x0,x1,y0,y1\]"),
        (["window=[1000000,999999.5,0,1]"], r"window=\[1000000, 999999.5, 0, 1\]: must be"),
        (["window=[0,1]"], r"window=\[0.0, 1.0\]: must have 4 numbers for d=2"),
        (["fractal=cantor_dust", "fractal.d=3", "window=[0,1,0,1]"], "window=.*: must be null for samples in d=3"),
        (["fractal=cantor_dust", "fractal.d=4"], "fractal.d=4: must be at most 3"),
        (["formats=[gif]"], "formats=.*: must be one or some of png, svg, pdf"),
        (["pointz=3"], "pointz"),
        (["margin=1"], "margin=1: must be < 0.004"),
        (["fractal=vicsek,cantor2d", "fractal.depth=3,40"], "fractal.depth=40: must be <= 11"),
        (["-m", "curve=1"], "--multirun: is for sweeps"),
        (["--package", "fractal"], "--package: there is no such option here"),
        *(([f"~{key}"], f"{key}: must be given") for key in ("seed", "points", "curve", "fractal", "formats")),
        (["+POINTS=7"], "POINTS=7: there is no such key; keys are"),
        (["++foo.bar=7"], "foo=.*bar.*: there is no such key"),
        (["+hydra_x=1"], "hydra_x=1: there is no such key"),
        (["hydra=range(1,1e9)"], r"hydra=range\(1,1e9\): must be one value"),
        (["curve=range(1,1e9)"], r"curve=range\(1,1e9\): must be at most 10000000 jobs"),
        (["vicsek"], "vicsek: must be KEY=VALUE"),
        (["--config-dir", "/nowhere"], "--config-dir=/nowhere: must be a directory"),
        (["run=/nowhere"], "run=/nowhere: there is no such directory"),
        *(
            ([word, "run=."], f"{word}: can't stand beside run=DIR")
            for word in ("curve=6", "fractal.depth=3", "seed=1")
        ),
        (["run=.", "curve=1,4"], "curve=1,4: can't stand beside run=DIR"),
        (["slice=0.5"], "slice=0.5: must stand beside run=DIR"),
        (["pixels=20"], "pixels=20: must stand beside run=DIR"),
    ],
)
def test_refusals_come_before_anything_is_drawn(arguments, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as caught:
        plot.write_pictures([*arguments, f"out={tmp_path}"])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_run_on_other_data_is_refused(tmp_path):
    record = RunRecord.of(compose(data="cifar10", model="cnn"), Status.FINISHED, best_test_acc=0.5, best_step=1)
    (tmp_path / "result.json").write_text(json.dumps(record.plain()))
    with pytest.raises(ConfigError, match="must be a run on a fractal, its data is cifar10"):
        plot.write_pictures([f"run={tmp_path}", f"out={tmp_path / 'out'}"])


def shell(*arguments):
    return subprocess.run([sys.executable, "-m", "fractal_ifs.plot", *arguments], capture_output=True, text=True)


def test_a_mistake_at_the_command_line_costs_one_line_and_the_exit_status(tmp_path):
    refused = shell("fractal=viksek", f"out={tmp_path}")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stderr.startswith("error: fractal=viksek")


def test_help_and_refusals_import_nothing_slow(tmp_path):
    code = (
        "import sys; from fractal_ifs import plot\n"
        "try: plot.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'matplotlib', 'pandas', 'scipy', 'pytorch_lightning'} & set(sys.modules)))"
    )
    for arguments in (
        ["--help"],
        ["curve=weights", "curve.weights=[1,2]", f"out={tmp_path}"],
        ["run=/nowhere", f"out={tmp_path}"],
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"
    assert "fractal=vicsek curve=1,4,6" in shell("--help").stdout


def test_a_run_whose_directory_has_the_signs_of_a_sweep_in_its_name(tmp_path):
    directory = tmp_path / "curve=1,steps=20" / "curve.weights=[1,2],width=4"
    fractal_ifs.run(directory, width=4, depth=1, steps=20, eval_every=20, logger="none", data__train_size=200)
    written = plot.write_pictures([f"run={directory}", f"out={tmp_path / 'out=1'}", "formats=[png]"])
    assert [path.parent.name for path in written] == ["out=1"]
    assert all(path.exists() for path in written)


def test_runs_that_differ_in_anything_have_pictures_of_their_own(tmp_path):
    keys = {"width": 4, "depth": 1, "steps": 20, "eval_every": 20, "logger": "none", "data__train_size": 200}
    for name, more in {
        "hinge": {},
        "logistic": {"loss": "logistic"},
        "coarse": {"curve": "weights", "curve__weights": (1, 0, 0, 0, 0)},
        "fine": {"curve": "weights", "curve__weights": (0, 0, 0, 0, 1)},
    }.items():
        fractal_ifs.run(tmp_path / name, **keys, **more)
    names = ("hinge", "logistic", "coarse", "fine")
    runs = ",".join(str(tmp_path / name) for name in names)
    written = plot.write_pictures([f"run={runs}", f"out={tmp_path / 'out'}", "formats=[png]", "pixels=20", "dpi=30"])
    assert len(set(written)) == len(names)


def test_the_title_is_of_the_network_that_was_loaded():
    """With ``load(DIR, best=True)`` another one than the record's last."""
    last = finished({"name": "dust", "d": 2, "ratio": "1/3", "corners": "2/3"}, HalfPlane())
    best = copy.copy(last)
    best.step, best.accuracy = 200, 0.8
    assert "after 300 steps, test accuracy 0.7000" in learned(last, pixels=20).get_suptitle()
    assert "after 200 steps, test accuracy 0.8000" in learned(best, pixels=20).get_suptitle()

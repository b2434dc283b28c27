"""The figures of any sweep, from runs trained here."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import small
from letters import wrongly_set
from PIL import ImageDraw

from fractal_ifs.config.run import Job
from fractal_ifs.errors import ConfigError
from fractal_ifs.plotting.style import Output, check_letters, drawing, fit
from fractal_ifs.report import content, levels, own_figures, panels, pictures
from fractal_ifs.report.panels import flat
from fractal_ifs.report.write import write_report
from fractal_ifs.results import pivot
from fractal_ifs.results.cells import Cells, form_cells
from fractal_ifs.results.measured import Series, measures_of, with_measure
from fractal_ifs.results.numbers import BEST, Number
from fractal_ifs.results.rows import read_runs
from fractal_ifs.results.varied import with_inner_keys
from fractal_ifs.sweeps.sweep import train_jobs

MEASURES = ("train_acc", "val_acc", "levels", "balance")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Runs on two curves and two seeds."""
    root = tmp_path_factory.mktemp("sweep")
    keys: Any = {"fractal": "vicsek", "data__val_size": 200, "data__test_size": 1000, "eval_every": 20, "steps": 100}
    jobs = [
        Job(small(curve=curve, seed=seed, measures=MEASURES, **keys), root / f"{curve}-{seed}")
        for curve in (1, 4)
        for seed in (0, 1)
    ]
    train_jobs(jobs)
    return root


def table_of(root) -> pivot.Pivot:
    return pivot.pivot(*with_inner_keys(read_runs([root])[0]))


def last(line) -> float:
    """Where a line ends."""
    return float(np.asarray(line.get_ydata())[-1])


def test_the_points_of_each_level_are_those_the_run_was_tested_on(sweep):
    for run in table_of(sweep).cells[0].runs:
        points = levels.points_of(run)
        assert sum(points.values()) == 1000
        series = measures_of(run)
        named = {0: "acc_positive"} | {level: f"acc_level_{level}" for level in points if level}
        for i, accuracy in enumerate(series["test_acc"].values):
            right = sum(points[level] * series[name].values[i] for level, name in named.items())
            assert right / 1000 == pytest.approx(accuracy, abs=1e-9)


def test_all_levels_are_lines_of_one_figure_with_their_numbers_of_points(sweep):
    table = table_of(sweep)
    figure = levels.learning(table, Output())
    assert figure is not None
    for axes, cell in zip(figure.axes, table.cells, strict=True):
        counts = [levels.points_of(run) for run in cell.runs]
        points = {level: sum(each.get(level, 0) for each in counts) / 2 for level in sorted(set().union(*counts))}
        legend = axes.get_legend()
        assert legend is not None
        texts = [text.get_text() for text in legend.get_texts()]
        assert texts[0] == f"positives, {round(points[0]):,} points"
        found = {int(level): int(number) for text in texts if (parts := re.match(r"level (\d), (\d+)", text))
                 for level, number in [parts.groups()]}  # fmt: skip
        assert found == {level: round(number) for level, number in points.items() if level}
        lines = axes.get_lines()
        for line, text in zip(lines, texts, strict=True):
            few = "level" in text and int(text.split()[2]) < 100
            assert (line.get_linestyle() == "--") == few == text.endswith("few")
        said = [measures_of(run)["said_positive"].values[-1] for run in cell.runs]
        assert last(lines[-1]) == pytest.approx(1 - np.mean(said), abs=1e-9)
    title = figure.get_suptitle()
    assert "Answering always “negative” has 1 on every level" in title


@pytest.mark.parametrize(("width", "font"), [(2.0, 6.6), (3.6, 12), (None, 12), (3.3, None)])
def test_no_letters_are_cut_off_or_over_others_at_the_edge_of_what_is_allowed(sweep, width, font):
    output = Output(width=width, font=font)
    check_letters(output)
    table = table_of(sweep)
    with drawing():
        for figure in (own_figures.against(table, output), own_figures.learning(table, "test_acc", output)):
            assert figure
            fit(figure, output)
            assert wrongly_set(figure) == []
        figure = levels.learning(table, output)
        assert figure
        fit(figure, output)
        assert wrongly_set(figure) == []
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend
        under = axes.xaxis.label.get_window_extent().y0 - legend.get_texts()[0].get_window_extent().y1
        assert 0 <= under * 72 / figure.dpi < 9


def test_figures_along_training_say_what_their_lines_are(sweep):
    """Means over how many seeds, at which learning rate where one was chosen, and of what the band is."""
    table = table_of(sweep)
    first, second = (replace(cell, lr=lr, lrs=2) for cell, lr in zip(table.cells, (0.01, 0.001), strict=True))
    chosen = replace(table, entries={("1",): {"": first}, ("4",): {"": second}})
    figure = own_figures.learning(chosen, "test_acc", Output())
    assert figure
    mean = "mean over n=2 seeds"
    assert figure.get_suptitle() == (
        f"Test accuracy along training: {mean}, band from least to largest; dashed: training accuracy, its mean alone"
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["curve 1, lr=0.01", "curve 4, lr=0.001"]
    drawn = figure.axes[0].get_lines()
    for solid, dashed in zip(drawn[::2], drawn[1::2], strict=True):
        assert dashed.get_marker() == solid.get_marker() != "None"
        assert [line.get_markerfacecolor() for line in (solid, dashed)] == [solid.get_color(), "white"]
    figure = levels.learning(chosen, Output())
    assert figure
    assert f"of each level, {mean}. " in figure.get_suptitle()
    assert [axes.get_title() for axes in figure.axes] == ["curve 1, lr=0.01", "curve 4, lr=0.001"]
    rows = {(depth,): {"2": first, "10": second if depth == "1" else first} for depth in ("1", "2")}
    figure = own_figures.learning(replace(table, rows=("depth",), column="width", entries=rows), "test_loss", Output())
    assert figure
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["width 2, lr=0.01", "width 10, lr=0.001–0.01"]  # of the second, a rate in each panel


def test_a_mean_along_training_doesnt_fall_where_the_best_seed_stops(sweep, monkeypatch):
    series = {0: Series([20, 40], [0.8, 0.9]), 1: Series([20, 40, 60], [0.5, 0.6, 0.7])}
    monkeypatch.setattr(
        panels, "measures_of", lambda run: {name: series[run["seed"]] for name in ("test_acc", "acc_positive")}
    )
    for figure in (
        own_figures.learning(table_of(sweep), "test_acc", Output()),
        levels.learning(table_of(sweep), Output()),
    ):
        assert figure
        assert np.asarray(figure.axes[0].get_lines()[0].get_ydata()).tolist() == pytest.approx([0.65, 0.75, 0.8])
        assert "mean over n=2 seeds" in figure.get_suptitle()
        assert "; where a run wasn't measured its last value counts" in figure.get_suptitle()


def test_the_figure_of_a_sweep_says_what_was_chosen_and_what_is_in_no_mean(sweep):
    table = table_of(sweep)
    first, second = table.cells
    chosen = replace(
        table,
        over_lr=True,
        entries={
            ("1",): {"": replace(first, lrs=3, apart={"diverged": 2})},
            ("4",): {"": replace(second, lrs=1, apart={"diverged": 1, "failed": 1})},
        },
    )
    for some, more in (
        (table, ""),
        (chosen, "; each at the best of up to 3 learning rates; in no mean: 3 diverged, 1 failed"),
    ):
        figure = own_figures.against(some, Output())
        assert figure
        assert figure.get_suptitle() == (
            f"The best test accuracy of all measurements, 4 runs; bars: ±1 standard deviation over n=2 seeds{more}"
        )


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_points_stand_at_their_values_unless_their_bars_would_hide_each_other(tmp_path, seeds):
    keys: Any = {"fractal": "vicsek", "steps": 20, "eval_every": 20}
    jobs = [
        Job(small(curve=curve, width=width, seed=seed, **keys), tmp_path / f"{curve}-{width}-{seed}")
        for curve in (1, 4)
        for width in (4, 8, 16)
        for seed in seeds
    ]
    train_jobs(jobs)
    figure = own_figures.against(table_of(tmp_path), Output())
    assert figure is not None
    at = sorted(float(x) for line in figure.axes[0].get_lines() for x in np.asarray(line.get_xdata()))
    assert (set(at) == {4.0, 8.0, 16.0}) == (len(seeds) == 1)
    assert set(np.round(at)) == {4.0, 8.0, 16.0}


def test_figures_along_training_of_one_seed_and_one_learning_rate_say_nothing_of_them(sweep):
    table = table_of(sweep)
    alone = {key: {"": replace(line[""], runs=line[""].runs[:1])} for key, line in table.entries.items()}
    figure = own_figures.learning(replace(table, entries=alone), "test_acc", Output())
    assert figure
    assert figure.get_suptitle() == "Test accuracy along training; dashed: training accuracy"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["curve 1", "curve 4"]


def test_a_level_that_only_some_seeds_were_tested_on_is_drawn(tmp_path):
    keys: Any = {"fractal": "vicsek", "curve": 1, "data__test_size": 20, "eval_every": 20, "steps": 40}
    seeds = range(3, 6)
    train_jobs([Job(small(seed=seed, measures=("levels",), **keys), tmp_path / str(seed)) for seed in seeds])
    [cell] = table_of(tmp_path).cells
    tested = [set(levels.points_of(run)) for run in cell.runs]
    assert set.union(*tested) - tested[0]  # the first seed lacks a level
    figure = levels.learning(table_of(tmp_path), Output())
    assert figure is not None
    assert len(figure.axes[0].get_lines()) == len(set.union(*tested)) + 1
    said = np.asarray(figure.axes[0].get_lines()[-1].get_ydata())
    assert ((said >= 0) & (said <= 1)).all()


def test_a_sheet_of_pictures_may_be_the_only_figure_beside_the_papers(tmp_path, monkeypatch):
    """Its head doesn't say which seed it is of: the first of a cell's, which may be any."""
    monkeypatch.setattr(content, "LEAST", 0)
    said: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda _, at, text, *rest, **keys: said.append(text))
    keys: Any = {"fractal": "vicsek", "curve": 4, "width": 10, "depth": 5, "data__train_size": 50_000}
    train_jobs([Job(small(seed=seed, data__test_size=5000, **keys), tmp_path / "runs" / str(seed)) for seed in (3, 4)])
    write_report([tmp_path / "runs"], tmp_path)
    assert (tmp_path / "figures" / "gallery_vicsek_curve.png").exists()
    assert [text for text in said if "seed" in text] == [
        "Vicsek, depth 5: after the last step of the best learning rate, its first seed"
    ]
    [cell] = form_cells(read_runs([tmp_path / "runs"])[0])[0].values()
    picture = (tmp_path / "pictures" / f"{cell.fingerprint}.png").read_bytes()
    other = Cells([cell._replace(differs="data.margin=0.003")], BEST)
    pictures.write_galleries(other, {cell.fingerprint: picture}, tmp_path)
    assert sum(text.endswith("(*: another budget, #: another protocol)") for text in said) == 1
    assert f"{cell.accuracy:.3f}*#" in said
    assert (tmp_path / "index.html").exists()


def test_the_training_accuracy_is_beside_the_test_accuracy(sweep, tmp_path):
    table = table_of(sweep)
    figure = own_figures.learning(table, "test_acc", Output())
    assert figure is not None
    lines = [line for axes in flat([figure.axes]) for line in axes.get_lines()]
    assert [line.get_linestyle() for line in lines] == ["-", "--"] * 2
    cell = table.cells[0]
    expected = sum(run["final_train_acc"] for run in cell.runs) / 2
    assert last(lines[1]) == pytest.approx(expected)
    text = write_report([sweep], tmp_path)
    tested = sum(run["final_test_acc"] for run in cell.runs) / 2
    validated = sum(run["final_val_acc"] for run in cell.runs) / 2
    said = f"train {expected:.4f}, test {tested:.4f}, val {validated:.4f}"
    assert said in text
    assert f"<br>{said}" in (tmp_path / "index.html").read_text()
    assert said in (tmp_path / "tables.md").read_text()
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert "along_levels.png" in names
    assert not [name for name in names if "level_" in name or "acc_positive" in name]
    assert 'alt="along_levels"' in (tmp_path / "index.html").read_text()


def test_a_run_without_its_record_has_levels_without_numbers(sweep):
    run = table_of(sweep).cells[0].runs[0]
    assert levels.points_of({**run, "directory": None}) == {}
    entry = replace(table_of(sweep).cells[0], runs=[{**run, "directory": None}])
    assert pivot.entry_text(entry, True, True)


def test_the_table_is_of_any_measure_at_any_step(sweep, tmp_path):
    text = write_report([sweep], tmp_path, number="acc_positive@40", columns="curve")
    table = table_of(sweep)
    for cell, curve in zip(table.cells, (1, 4), strict=True):
        values = [series.values[series.steps.index(40)] for run in cell.runs
                  if (series := measures_of(run)["acc_positive"])]  # fmt: skip
        assert len(values) == 2
        assert f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" in text, curve
        of_file = pd.read_csv(tmp_path / "table.csv").set_index("curve").loc[curve]
        assert of_file["number"] == "acc_positive at step 40"
        assert [of_file["mean"], of_file["sd"], of_file["n"]] == pytest.approx(
            [np.mean(values), np.std(values, ddof=1), 2]
        )
    assert "The measure acc_positive at step 40, 4 runs" in text
    assert '"acc_positive@40"' not in text
    runs, number = with_measure(read_runs([sweep])[0], "val_acc")
    assert number.column == "val_acc@last"
    assert runs[number.column].tolist() == runs["final_val_acc"].tolist()


@pytest.mark.parametrize(
    ("number", "why"),
    [
        ("acc_postive", "must be a number or a measure of these runs: did you mean acc_positive?"),
        ("fnal", "did you mean final?"),
        ("levels", "has several numbers, must be one of acc_positive, acc_level_1, acc_level_2, "),
        ("balance", "has several numbers, must be one of said_positive, labels_positive"),
        ("acc_positive@0", "must be acc_positive@STEP with a step of a measurement: 20, 40, 60, 80, 100"),
        ("@", "must be a number or a measure of these runs: best, final, last10, chosen, "),
    ],
)
def test_a_number_that_no_run_has_is_refused(sweep, tmp_path, number, why):
    with pytest.raises(ConfigError, match=f"^number={re.escape(number)}: .*{re.escape(why)}"):
        write_report([sweep], tmp_path / "out", number=number)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("means", "scale", "bottom"),
    [((0.5, 0.004), "symlog", 0), ((0.5, 0.01), "linear", None), ((0.5, -0.004), "symlog", None)],
)
def test_numbers_of_several_orders_have_a_logarithmic_axis(sweep, means, scale, bottom):
    table = table_of(sweep)
    entries = {key: {value: replace(cell, mean=mean) for value, cell in line.items()}
               for (key, line), mean in zip(table.entries.items(), means, strict=True)}  # fmt: skip
    figure = own_figures.against(replace(table, number=Number.of_measure("grad_snr", "0"), entries=entries), Output())
    assert figure is not None
    [axes] = figure.axes
    assert axes.get_yscale() == scale
    assert axes.get_ylabel() == "grad_snr"
    assert (axes.get_ylim()[0] == 0) == (bottom == 0)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (["0", "1e-05", "0.0001", "0.1"], "symlog"),  # on a linear axis the first three would be one point
        (["0", "0.1", "0.3", "0.5", "0.7", "0.9"], "linear"),
        ([repr(10 ** -(1 + i / 20)) for i in range(60)], "log"),
        (["0", *(repr(10 ** -(1 + i / 20)) for i in range(60))], "symlog"),
        ([f"name{i}" for i in range(60)], "linear"),
        (["0", "00", "000"], "linear"),  # of a text key
    ],
)
def test_the_values_of_a_key_stand_apart_and_no_more_are_named_than_there_is_room_for(sweep, values, scale):
    first, second = table_of(sweep).cells
    entries = {(curve,): dict.fromkeys(values, cell) for curve, cell in (("1", first), ("4", second))}
    table = replace(table_of(sweep), rows=("curve",), column="optimizer.weight_decay", entries=entries)
    figure = own_figures.against(table, Output())
    assert figure
    fit(figure, Output())
    [axes] = figure.axes
    assert axes.get_xscale() == scale
    names = [text.get_text() for text in axes.get_xticklabels() if text.get_text()]
    assert len(names) <= 16
    if len(values) < 16:
        assert sorted(names) == sorted(values)
    at = [axes.transData.transform((x, 0.5))[0] for x in np.asarray(axes.get_lines()[0].get_xdata())]
    assert np.diff(at).min() > 2  # pixels
    along = own_figures.learning(table, "test_acc", Output())
    assert along
    assert len(along.legends[0].get_texts()) <= 16
    assert (f" of {len(values)} values of optimizer.weight_decay" in along.get_suptitle()) == (len(values) > 16)


@pytest.mark.parametrize(
    ("names", "cut"),
    [
        (["short", "b" * 30], ["short", "b" * 9 + "..."]),
        (["x" * 20 + "1", "x" * 20 + "2", "y"], ["xxxx...xxxx1", "xxxx...xxxx2", "y"]),
        (["x" * 20 + "1" + "x" * 20, "x" * 20 + "2" + "x" * 20], ["1: xxxxxx...", "2: xxxxxx..."]),
    ],
)
def test_names_that_are_cut_are_still_told_apart(names, cut):
    assert own_figures._told_apart(names, 12) == cut

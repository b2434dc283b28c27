"""What a record says appears letter by letter in every form of a report, and is never taken for code."""

import csv
from pathlib import Path

from fractal_ifs.plot import write_pictures
from fractal_ifs.report.write import write_report
from fractal_ifs.results import finished_runs
from fractal_ifs.results.rows import read_runs
from fractal_ifs.results.text_table import quoted
from fractal_ifs.results.values import number_of

ROOT = Path(__file__).parents[1]

NAME = r"$\foo{$ [/red]<script>alert(1)</script>|@DATA@ `x` \input{x}"
WORDS = [
    "width=4",
    "depth=1",
    "curve=1,4",
    "optimizer=adam,sgd",
    "steps=20",
    "eval_every=10",
    "data.train_size=200",
    "data.test_size=50",
]


def test_reports_and_pictures_show_a_name_letter_by_letter(command, tmp_path):
    words = [*WORDS, "logger=none", f'fractal.name="{NAME}"']
    assert command("-m", *words, "sweep=s").status == 0
    write_report([tmp_path / "multirun" / "s"], tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;|@DATA@") >= 1
    text = (tmp_path / "out" / "report.md").read_text()
    assert "<script>" not in text.replace(r"\<script>", "")
    for line in (tmp_path / "out" / "tables.tex").read_text().splitlines():
        assert r"\input" not in line.partition("%")[0]
    assert write_pictures([f'fractal.name="{NAME}"', "points=100", "formats=png"])


def test_no_cell_of_a_table_is_a_formula_and_all_are_read_again(command, tmp_path):
    names = ["=HYPERLINK(1)", "@SUM(1)", "-1+1", "+1;1", "'=1", "''+1", "'name", "−1"]
    quotes = [f'"{name}"' for name in names]
    words = [word for word in WORDS if not word.startswith(("curve", "optimizer"))]
    swept = ["-m", *words, "logger=none", f"fractal.name={','.join(quotes)}", "curve=1", "sweep=s", "kept=kept.csv"]
    Path("kept.csv").write_bytes((ROOT / "docs/reproduction/results.csv").read_bytes().splitlines(True)[0])
    assert command(*swept).status == 0
    write_report([tmp_path / "multirun" / "s"], tmp_path / "out", with_figures=False)
    for path in (
        tmp_path / "multirun/s/results.csv",
        tmp_path / "out/results.csv",
        tmp_path / "out/cells.csv",
        tmp_path / "out/table.csv",
        Path("kept.csv"),
    ):
        with open(path, newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@") and number_of(cell) is None]
    table, _ = read_runs([tmp_path / "out" / "results.csv"])
    assert set(table.fractal) == set(names)
    assert {row["fractal"] for row in finished_runs.read(Path("kept.csv")).rows.values()} == set(names)


def test_tables_without_formulas_stay_as_they_were():
    path = ROOT / "docs/reproduction/results.csv"
    rows = finished_runs.read(path).rows
    assert [quoted(value) for row in rows.values() for value in row.values()] == [
        value for row in rows.values() for value in row.values()
    ]

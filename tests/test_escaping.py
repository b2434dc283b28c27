"""What a record says appears letter by letter in every form of a report, and is never taken for code."""

from fractal_ifs.plot import write_pictures
from fractal_ifs.report.write import write_report

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

"""The pages tell the truth: the how-to's commands run, links lead somewhere, tables are those of the kept runs."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fractal_ifs.config.compose import compose
from fractal_ifs.report.tables import FRACTALS, paper
from fractal_ifs.results.rows import COLUMNS
from fractal_ifs.runs.records import KEYS

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"(?:`(tests/test_\w+\.py)`: )?`(test_\w+)`")
needs_bash = pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
TINY = "steps=40 eval_every=20 data.train_size=400 data.test_size=100"


def script(page: str) -> str:
    """One shell script of all bash and python blocks; a sweep keeps the name that its own words give it."""
    lines = [
        "set -eu",
        f"export PATH={Path(sys.executable).parent}:$PATH",
        f'python() {{ case "$*" in *ckpt_path*) command python "$@" {TINY} steps=60;; '
        f'"-m fractal_ifs.train"*) command python "$@" {TINY};; *) command python "$@";; esac; }}',
    ]
    for kind, block in re.findall(r"```(bash|python)\n(.*?)```", page, re.DOTALL):
        lines.append(block if kind == "bash" else f"command python - <<'END_OF_BLOCK'\n{block}END_OF_BLOCK")
    return "\n".join(lines)


def ran(page: str, directory: Path) -> str:
    """What all commands of a page print, one after the other in an empty directory."""
    text = script((ROOT / "docs" / f"{page}.md").read_text())
    done = subprocess.run(["bash", "-c", text], cwd=directory, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@needs_bash
def test_every_command_of_the_how_to_runs(tmp_path):
    pytest.importorskip("wandb_workspaces")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    printed = ran("howto", tmp_path)
    assert re.search(r"best_test_acc +0\.\d", printed)
    assert (tmp_path / "margins" / "index.html").exists()
    assert len(list((tmp_path / "multirun" / "margins-40").rglob("result.json"))) == 12
    assert "data.margin=0.001" in printed
    assert '"name": "dashboards"' in printed or '"displayName": "dashboards"' in printed
    assert "MLP(" in printed
    drawn = {path.name.split("-")[0] for path in tmp_path.rglob("*.png") if path.parent.name == "plots"}
    assert drawn == {"corners"}
    sent = list((tmp_path / "multirun" / "dashboards").rglob("offline-run-*"))
    assert len([path for path in sent if path.is_dir()]) == 2


@pytest.mark.slow
@needs_bash
def test_the_laboratory_runs_from_the_class_to_the_report(tmp_path):
    printed = ran("laboratory", tmp_path)
    records = [json.loads(path.read_text()) for path in (tmp_path / "multirun" / "siren").rglob("result.json")]
    assert len(records) == 24
    assert {record["config"]["model"]["_target_"] for record in records} == {"nets.Siren"}
    logs = [path.read_text() for path in (tmp_path / "multirun" / "siren").rglob("train.log")]
    assert not [text for text in logs if "one by one" in text]
    assert (tmp_path / "siren" / "index.html").exists()
    assert [path.name.split("-")[-1] for path in (tmp_path / "plots").glob("*.png")] == ["Siren.png"]
    assert "Siren(" in printed


@pytest.mark.slow
@needs_bash
def test_every_command_of_the_lightning_page_runs(tmp_path):
    printed = ran("lightning", tmp_path)
    assert "epoch,norm,step" in printed
    for name in ("lightning", "finer", "norms"):
        assert json.loads((tmp_path / "outputs" / name / "result.json").read_text())["engine"] == "lightning"
    assert (tmp_path / "outputs" / "lightning" / "checkpoints" / "best.ckpt").exists()


NOTEBOOK = """
import json, sys
import matplotlib
matplotlib.use("agg")
import fractal_ifs
whole = fractal_ifs.sweep
tiny = {"steps": 40, "eval_every": 10, "data__train_size": 400, "data__test_size": 400, "width": 5}
fractal_ifs.sweep = lambda *names, **keys: whole(*names, **{**keys, **tiny})
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), globals())
print(len(table), len(plt.get_fignums()), best.accuracy == table.best_test_acc.max())
"""


def test_the_notebook_runs_from_the_sweep_to_the_picture(tmp_path):
    """Its cells in their order in a fresh process, with a tiny budget; and it holds what they gave with their own."""
    notebook = ROOT / "docs" / "notebook.ipynb"
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, notebook], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "6 2 True"
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"levels.pdf", "levels.png"}
    code = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert len([output for output in outputs if "image/png" in output.get("data", ())]) == 3
    assert any("6 running" in "".join(output.get("text", ())) for output in code[0]["outputs"])


def test_the_gallery_has_ten_pictures_each_with_its_command_and_finding():
    sections = (ROOT / "docs" / "gallery.md").read_text().split("\n## ")[1:]
    assert len(sections) >= 10
    for section in sections:
        _, command, rest = section.split("```", 2)
        assert command.startswith("bash\npython -m fractal_ifs.")
        assert re.search(r"!\[[^]]+\]\(gallery/[\w.-]+\.png\)", rest)
        assert len(rest.strip().split("\n\n")[-1].split()) >= 8  # a finding, in words
        assert "docs/gallery" in command


@pytest.mark.parametrize(("page", "commands"), [("howto", 13), ("laboratory", 1), ("lightning", 3)])
def test_commands_of_pages_are_found(page, commands):
    """As many as the pages have: none escapes the tests above by another spelling."""
    assert script((ROOT / "docs" / f"{page}.md").read_text()).count("python -m fractal_ifs.train") == commands


def test_links_between_the_pages_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def table(page: str, first: str) -> list[list[str]]:
    """The lines of the Markdown table whose head begins with a word, without the head; each as its entries."""
    lines = (ROOT / page).read_text().split(f"| {first} |", 1)[1].split("\n\n")[0].splitlines()[2:]
    return [[entry.strip() for entry in line.strip("|").split("|")] for line in lines]


def cells() -> dict[tuple[str, str, str, str], str]:
    """The reported accuracies, ``.969``, by fractal (or set of images), curve, depth and width."""
    with open(ROOT / "docs" / "reproduction" / "cells.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["fractal_depth"] in ("", "5.0") and not row["differs"]]
    return {
        (row["fractal"] or row["data"], row["curve"], row["depth"], row["width"]): short(float(row["accuracy"]))
        for row in rows
    }


def short(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}".removeprefix("0")


def test_table_2_in_the_readme_is_the_reported_one():
    ours, theirs = cells(), paper()["table2"]["values"]
    lines = table("README.md", "curve")
    assert len(lines) == 4
    for (_, *entries), fractal in zip(lines, FRACTALS, strict=True):
        expected = [f"{ours[fractal, str(c), '5', '50']} ({short(theirs[fractal][c - 1][2], 2)})" for c in range(1, 7)]
        assert entries == expected, fractal


def test_every_column_that_is_not_named_as_its_key_is_explained():
    explained = {name for first, *_ in table("docs/howto.md", "column") for name in re.findall(r"`(\w+)`", first)}
    assert explained <= set(COLUMNS)
    config = compose()
    own = {name for name in KEYS if isinstance(getattr(config, name, None), int | float | str)}
    assert set(KEYS) - own - {"fingerprint"} <= explained
    assert not own & explained


def test_figure_7_in_its_page_is_the_reported_one():
    ours, theirs = cells(), paper()["figure7"]
    lines = (ROOT / "docs" / "cifar10.md").read_text().split("## The figure")[1]
    for depth, values in zip(theirs["rows"], theirs["values"], strict=True):
        expected = [
            f"{ours.get(('cifar10', '', str(depth), str(channels)), '')} ({short(value)})".strip()
            for channels, value in zip(theirs["channels"], values, strict=True)
        ]
        assert f"| {depth} | {' | '.join(expected)} |" in lines


@pytest.mark.parametrize("name", ["hydra", "guarantees"])
def test_every_test_that_a_page_names_is_there(name):
    """In the file that is named before it, test_hydra.py where none is."""
    page = (ROOT / "docs" / f"{name}.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|") or "`test_" in line]
    named = [(file or "tests/test_hydra.py", name) for row in rows for file, name in NAMED.findall(row)]
    assert len(named) > 20
    assert not [name for file, name in named if f"def {name}(" not in (ROOT / file).read_text()]

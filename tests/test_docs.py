"""The commands and the Python of docs/howto.md run, in order and in one directory, with a tiny budget."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = "steps=40 eval_every=20 data.train_size=400 data.test_size=100"


def script(page: str) -> str:
    """One shell script of all bash and python blocks; a sweep keeps the name that its own words give it."""
    lines = [
        "set -eu",
        f"export PATH={Path(sys.executable).parent}:$PATH",
        f'python() {{ case "$2" in *.train) command python "$@" {TINY};; *) command python "$@";; esac; }}',
    ]
    for kind, block in re.findall(r"```(bash|python)\n(.*?)```", page, re.DOTALL):
        lines.append(block if kind == "bash" else f"command python - <<'END_OF_BLOCK'\n{block}END_OF_BLOCK")
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_every_command_of_the_how_to_runs(tmp_path):
    pytest.importorskip("wandb_workspaces")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    text = script((ROOT / "docs" / "howto.md").read_text())
    assert text.count("python -m fractal_ifs.train") == 6
    done = subprocess.run(["bash", "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"best_test_acc +0\.\d", done.stdout)
    assert (tmp_path / "margins" / "index.html").exists()
    assert len(list((tmp_path / "multirun" / "margins-40").rglob("result.json"))) == 4
    assert '"name": "dashboards"' in done.stdout or '"displayName": "dashboards"' in done.stdout
    assert "MLP(" in done.stdout
    drawn = {path.name.split("-")[0] for path in tmp_path.rglob("*.png") if path.parent.name == "plots"}
    assert drawn == {"corners"}
    sent = list((tmp_path / "multirun" / "dashboards").rglob("offline-run-*"))
    assert len([path for path in sent if path.is_dir()]) == 2


def test_links_between_the_pages_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"

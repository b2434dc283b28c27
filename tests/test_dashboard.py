"""The W&B workspace: what it would save, from W&B's own library, without the network."""

import json
import subprocess
import sys

import pytest


def test_the_panels_group_by_keys_that_runs_have(tmp_path):
    pytest.importorskip("wandb_workspaces")
    command = [sys.executable, "-m", "fractal_ifs.dashboard", "someone", "--sweep", "table2", "--print"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    text = json.dumps(json.loads(done.stdout))
    from conftest import small

    keys = small().leaves()
    for key in ("fractal.name", "curve.name", "depth", "width", "lr", "seed"):
        assert key in keys
        assert key in text
    for kind in ("Parallel Coordinates Plot", "Bar Chart", "Scatter Plot", "Run History Line Plot"):
        assert f'"viewType": "{kind}"' in text
    assert '"value": "table2"' in text
    saved = subprocess.run(
        command[:-1], cwd=tmp_path, capture_output=True, text=True, timeout=300, env={"HOME": str(tmp_path), "PATH": ""}
    )
    assert saved.returncode == 1
    assert saved.stderr.startswith("error: W&B doesn't take it: ")
    assert len(saved.stderr.splitlines()) == 1

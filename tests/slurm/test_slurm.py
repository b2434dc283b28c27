"""A sweep under a real Slurm, which tests/slurm/start.sh starts on this machine; skipped where none runs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killed import SMALL, command, results, start, steps, table, wait_for

from fractal_ifs.sweeps.slurm_queue import submitted_tasks

pytest.importorskip("submitit")


def slurm(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture(autouse=True)
def running_slurm():
    if shutil.which("sinfo") is None:
        pytest.skip("Slurm isn't installed here (tests/slurm/start.sh installs and starts one)")
    if not slurm("sinfo", "--noheader", "--format=%t").strip():
        pytest.skip("no Slurm runs here (tests/slurm/start.sh starts one)")
    before = set(queue())
    yield
    if left := set(queue()) - before:
        slurm("scancel", *left)


def queue() -> dict[str, str]:
    lines = slurm("squeue", "--noheader", "--array", "--format=%i|%T").split()
    return dict(line.split("|") for line in lines)


GRID = ["curve=1,4", "lr=1e-3,2e-3", *SMALL, "width=20", "steps=40000"]
SLURM = ["hydra/launcher=slurm", "hydra.launcher.cpus=1", "hydra.launcher.tasks=2", "hydra.launcher.time=30"]


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    """What the same sweep finds without Slurm."""
    directory = tmp_path_factory.mktemp("inline")
    assert command(directory, "-m", *GRID, "sweep=s")[0] == 0
    return directory / "multirun/s"


def states(directory: Path) -> str:
    return subprocess.run(
        [sys.executable, "-m", "fractal_ifs.report", "status", str(directory)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def released() -> None:
    """What was requeued starts at once, not after two minutes."""
    for name, state in queue().items():
        if state == "PENDING":
            slurm("scontrol", "update", f"jobid={name}", "StartTime=now")


def test_a_driver_that_leaves(tmp_path, inline):
    """Submitted, left, looked after, waited for by the same command: the numbers are those of the inline sweep."""
    sweep = tmp_path / "multirun/s"
    status, text = command(tmp_path, "-m", *GRID, *SLURM, "sweep=s", "hydra.launcher.wait=false")
    assert status == 0, text
    assert "4 jobs in 2 Slurm tasks of job" in text
    [submitted] = (sweep / "slurm").glob("*.json")
    assert sorted(len(runs) for runs in json.loads(submitted.read_text()).values()) == [2, 2]
    assert len(queue()) == 2
    assert re.search(r"4 runs: .*(queued|running)", states(sweep))
    assert "Slurm tasks" in states(sweep)
    [code] = (sweep / "slurm").glob("code-*")
    assert f"PYTHONPATH={code}" in next((sweep / "slurm").glob("*.sh")).read_text()
    status, text = command(tmp_path, "-m", *GRID, *SLURM, "sweep=s")
    assert status == 0, text
    assert "in Slurm's hands already" in text or "finished already" in text
    assert len(list((sweep / "slurm").glob("*.json"))) == 1  # nothing was submitted twice
    assert "4 runs: 4 finished; 160,000 of 160,000 steps (100.0%)" in states(sweep)
    assert results(sweep) == results(inline)
    assert table(sweep) == table(inline)


def far(sweep: Path) -> dict[str, list[int]]:
    """How far each run of each task is. A task that isn't submitted yet is there, with no run."""
    taken, tasks = steps(sweep), submitted_tasks(sweep) or {"none": []}
    return {task: [taken.get(run.name, 0) for run in runs] for task, runs in tasks.items()}


def test_requeued_and_left_by_a_killed_driver(tmp_path, inline):
    """One task is requeued by Slurm, the other warned of its time limit, the driver killed; all go on."""
    sweep = tmp_path / "multirun/s"
    arguments = ["-m", *GRID, *SLURM, "sweep=s", "logger=wandb"]
    grid = [a for a in arguments if a != "logger=none"]
    driver = start(tmp_path, *grid, WANDB_MODE="offline")
    assert wait_for(lambda: all(any(taken > 1000 for taken in task) for task in far(sweep).values()), driver)
    names = sorted(queue())
    assert len(names) == 2
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    slurm("scancel", "--signal=USR2", names[0])
    slurm("scontrol", "requeue", names[1])
    again = start(tmp_path, *grid, WANDB_MODE="offline")
    while again.poll() is None:
        released()
        time.sleep(0.5)
    text, _ = again.communicate()
    assert again.returncode == 0, text
    assert "in Slurm's hands already" in text
    logs = {path.name: path.read_text() for path in (sweep / "slurm").glob("*_log.err")}
    assert sum("requeued, 1 of 20 times" in log for log in logs.values()) == 1
    begun = re.findall(r"training from step (\d+)", "".join(p.read_text() for p in sweep.rglob("train.log")))
    assert len(begun) >= 6  # four runs, of which two began again
    assert sum(int(step) > 1000 for step in begun) >= 2  # and not from the start
    found, expected = results(sweep), results(inline)
    assert {name: run[:2] for name, run in found.items()} == {name: run[:2] for name, run in expected.items()}
    for directory in [path.parent for path in sweep.rglob("result.json")]:
        # offline-run-TIME-ID, with -1 after it where two begin in one second
        ids = {path.name.split("-")[3] for path in (directory / "wandb").glob("offline-run-*")}
        assert len(ids) == 1  # the same W&B run


def test_one_job_fails(tmp_path):
    """Two of four can't be begun: these are named with their logs, the others finish."""
    sweep = tmp_path / "multirun/s"
    grid = [a.replace("steps=40000", "steps=400") for a in GRID]
    assert command(tmp_path, "-m", *grid, "sweep=names")[0] == 0
    for name in [path.parent.name for path in (tmp_path / "multirun/names").rglob("result.json")]:
        if "curve=4" in name:
            (sweep / name / ".lock").mkdir(parents=True)  # where a lock should be
    status, text = command(tmp_path, "-m", *grid, *SLURM, "sweep=s")
    assert status == 1
    assert "Traceback" not in text
    assert text.count("IsADirectoryError") == 2  # each once
    assert "2 jobs failed" in text
    assert "train.log" in text
    assert sorted(row["status"] for row in table(sweep)) == ["failed", "failed", "finished", "finished"]
    assert "2 failed, 2 finished" in states(sweep)
    for path in sweep.rglob(".lock"):
        path.rmdir()
    status, text = command(tmp_path, "-m", *grid, *SLURM, "sweep=s")
    assert status == 0, text
    assert "2 of 4 jobs are finished already" in text


def test_env_set_reaches_the_tasks(tmp_path):
    grid = [a.replace("steps=40000", "steps=400") for a in GRID]
    words = ["+hydra.job.env_set.FRACTAL_IFS_TEST=yes", "hydra.launcher.setup=['env > env-$SLURM_ARRAY_TASK_ID']"]
    status, text = command(tmp_path, "-m", *grid, *SLURM, "sweep=s", *words)
    assert status == 0, text
    found = [path.read_text() for path in tmp_path.glob("env-*")]
    assert ["\nFRACTAL_IFS_TEST=yes\n" in each for each in found] == [True, True]


def test_cancelled(tmp_path):
    sweep = tmp_path / "multirun/s"
    grid = [a.replace("steps=40000", "steps=100000000") for a in GRID]
    driver = start(tmp_path, "-m", *grid, *SLURM, "sweep=s")
    assert wait_for(lambda: len(steps(sweep)) == 4, driver)
    assert "4 running" in states(sweep)
    slurm("scancel", *{name.split("_")[0] for name in queue()})
    text, _ = driver.communicate(timeout=90)
    assert driver.returncode == 1
    assert "ended before it did (cancelled" in text
    assert "4 jobs failed" in text
    assert "4 interrupted" in states(sweep)


def test_more_than_any_node_has(tmp_path):
    """It is refused, or waits for ever: either way Slurm's reason is told."""
    driver = start(tmp_path, "-m", *GRID, *SLURM, "hydra.launcher.cpus=500", "sweep=s")
    lines = []
    assert driver.stdout is not None
    for line in driver.stdout:
        lines.append(line)
        if "pending:" in line or line.startswith("error"):
            break
    driver.send_signal(signal.SIGTERM)
    driver.communicate(timeout=30)
    assert re.search(r"pending: \w+|error: hydra/launcher=slurm: can't submit: .*not available", "".join(lines))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_slurm", "submitit_local"])
def test_the_stock_plugin(tmp_path, inline, launcher):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    options = ["hydra.launcher.timeout_min=30", "hydra.launcher.cpus_per_task=1"]
    shim = tmp_path / "bin"  # it asks sacct how its jobs stand, which needs accounting
    shim.mkdir()
    (shim / "sacct").write_text(SACCT)
    (shim / "sacct").chmod(0o755)
    status, text = command(
        tmp_path,
        "-m",
        *[a.replace("lr=1e-3,2e-3", "lr=1e-3") for a in GRID],
        f"hydra/launcher={launcher}",
        *options,
        "sweep=s",
        PATH=f"{shim}:{os.environ['PATH']}",
    )
    assert status == 0, text
    found, expected = results(tmp_path / "multirun/s"), results(inline)
    assert len(found) == 2
    assert all(expected[name][:2] == run[:2] for name, run in found.items())


SACCT = """#!/bin/sh
echo 'JobID|State|NodeList'
squeue --noheader --array --states=all --format='%i|%T|%N'
"""


@pytest.mark.slow
def test_a_time_limit_forces_it_to_requeue(tmp_path):
    """Slurm's own limit of a minute, twice: warned, checkpointed, requeued, warned again and given up."""
    sweep = tmp_path / "multirun/s"
    grid = [a.replace("steps=40000", "steps=100000000").replace("curve=1,4", "curve=1") for a in GRID]
    limits = ["hydra.launcher.time=1", "hydra.launcher.warning=20", "hydra.launcher.requeues=1"]
    driver = start(tmp_path, "-m", *grid, *SLURM, *limits, "hydra.launcher.tasks=1", "sweep=s")
    begun = time.monotonic()
    while driver.poll() is None:
        assert time.monotonic() - begun < 300
        released()
        time.sleep(0.5)
    text, _ = driver.communicate()
    assert driver.returncode == 1
    assert "ended before it did" in text
    [log] = (sweep / "slurm").glob("*_log.err")
    assert "requeued, 1 of 1 times" in log.read_text()
    assert "not requeued: that was done 1 times" in log.read_text()
    for path in sweep.rglob("train.log"):
        first, second = re.findall(r"training from step (\d+)", path.read_text())
        assert int(first) == 0 < int(second)
        assert json.loads((path.parent / "result.json").read_text())["steps"] > int(second)

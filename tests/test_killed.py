"""What is killed goes on: real processes, SIGKILL at any moment, and bits that don't tell."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from killed import SMALL, children, command, kill, results, start, steps, table, untouched, wait_for

from fractal_ifs.runs import locks

NATIVE = ["engine=auto", "width=20", "steps=40000", "workers=1"]
TORCH = ["engine=torch", "width=10", "steps=2000"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", [NATIVE, TORCH], ids=["native", "torch"])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, engine):
    arguments = ["fractal=vicsek", *SMALL, *engine]
    asked = int(engine[2].split("=")[1])
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    killed.mkdir()
    assert command(straight, *arguments)[0] == 0
    for part in (0.2, 0.6):
        process = start(killed, *arguments)
        assert wait_for(lambda: max(steps(killed).values(), default=0) > part * asked, process)  # noqa: B023
        kill(process)
        assert not list(killed.rglob("result.json"))
    status, text = command(killed, *arguments)
    assert status == 0, text
    assert "best test accuracy" in text
    log = next(killed.rglob("train.log")).read_text()
    assert log.count("training from step") == 3
    assert log.count("training from step 0 ") == 1
    assert results(killed) == results(straight)
    assert not list(killed.rglob("begun.json"))
    assert not list(killed.rglob(".lock"))


SWEEP = ["-m", "fractal=vicsek", "curve=1,4", "lr=1e-3,2e-3", *SMALL, "sweep=s"]
SWEEPS = {
    "native": [*SWEEP, "width=20", "steps=20000"],
    "torch": [*SWEEP, "width=10", "steps=1000", "engine=torch", "workers=2"],
}


@pytest.mark.parametrize("engine", ["native", pytest.param("torch", marks=pytest.mark.slow)])
def test_a_killed_sweep_goes_on_and_is_joined(tmp_path, engine):
    arguments, asked = SWEEPS[engine], int(next(a for a in SWEEPS[engine] if a.startswith("steps="))[6:])
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    killed.mkdir()
    joined = [a.replace("curve=1,4", "curve=1,4,6") for a in arguments]
    assert command(straight, *joined)[0] == 0
    process = start(killed, *arguments)
    assert wait_for(lambda: max(steps(killed).values(), default=0) > 0.4 * asked, process)
    if engine == "torch":  # a worker: its jobs fail, the others go on
        worker = children(process.pid)[0]
        os.kill(worker, signal.SIGKILL)
        text, _ = process.communicate(timeout=300)
        assert process.returncode == 1
        assert "WorkerDied: its worker process was killed by signal 9" in text
        assert "train.log" in text
        rows = table(killed / "multirun/s")
        assert sorted(row["status"] for row in rows) == ["failed", "failed", "finished", "finished"]
        before = untouched(killed)
        finished = [row["directory"] for row in rows if row["status"] == "finished"]
        process = start(killed, *arguments)
        assert wait_for(lambda: (killed / "multirun/s/.lock").exists(), process)
    else:
        before, finished = {}, []
    kill(process)
    status, text = command(killed, *arguments)
    assert status == 0, text
    after = untouched(killed)
    assert all(after[path] == time for path, time in before.items() if Path(path).parent.name in finished)
    status, text = command(killed, *joined)
    assert status == 0, text
    assert "4 of 6 jobs are finished already" in text
    assert {path: untouched(killed)[path] for path in after} == after  # 0 steps
    assert results(killed) == results(straight)
    assert table(killed / "multirun/s") == table(straight / "multirun/s")


AT_ITS_FIRST_CHECKPOINT = """
import os, signal, threading
from fractal_ifs.runs import run
from fractal_ifs.train import main
write, alone = run.write_checkpoint, threading.Lock()
def killed(*arguments):
    alone.acquire()  # checkpoints are written side by side
    write(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
run.write_checkpoint = killed
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("width", "precision"), [(11, "32-true"), (13, "32-true"), (20, "64-true")])
def test_a_run_goes_on_beside_one_that_is_ahead_of_it(tmp_path, width, precision):
    """Killed when the first of two had its checkpoint and the other had none, it ends as two that never met."""
    arguments = ["-m", "fractal=vicsek", "curve=1,4", *SMALL, "steps=800", "sweep=s", "engine=torch"]
    arguments += [f"width={width}", f"trainer.precision={precision}"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    killed.mkdir()
    assert command(straight, *arguments, "workers=2")[0] == 0
    process = start(killed, *arguments, "workers=1", code=AT_ITS_FIRST_CHECKPOINT)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, text
    assert len(list(killed.rglob("checkpoint.pt"))) == 1
    status, text = command(killed, *arguments, "workers=1")
    assert status == 0, text
    assert results(killed) == results(straight)


def test_a_second_driver_is_told_and_touches_nothing(tmp_path):
    arguments = ["-m", "curve=1,4", *SMALL, "width=20", "steps=10000000", "sweep=s"]
    first = start(tmp_path, *arguments)
    assert wait_for(lambda: steps(tmp_path), first)
    [directory, _] = [path.parent for path in sorted(tmp_path.rglob("begun.json"))]
    assert locks.trained(directory)
    assert locks.trained(tmp_path / "multirun/s")
    status, text = command(tmp_path, *arguments)
    assert status == 1
    assert f"process {first.pid} on" in text
    assert "trains this sweep now" in text
    assert text.count("\n") == 1, text
    # Not as a sweep: a run on its own in a directory of the sweep.
    one = [a for a in arguments[2:] if not a.startswith("sweep")]
    status, text = command(tmp_path, *one, "curve=1", f"hydra.run.dir='{directory}'", "sweep=s")
    assert status == 1
    assert "trains this run now" in text
    assert text.count("\n") == 1, text
    assert first.poll() is None
    begun = time.monotonic()
    first.send_signal(signal.SIGTERM)
    text, _ = first.communicate(timeout=30)
    assert time.monotonic() - begun < 10
    assert first.returncode == 143
    assert "Traceback" not in text
    assert "interrupted: the same command goes on from here" in text
    assert {row["status"] for row in table(tmp_path / "multirun/s")} == {"interrupted"}
    assert not locks.trained(directory)


@pytest.mark.parametrize("where", ["run", pytest.param("sweep", marks=pytest.mark.slow)])
def test_a_half_done_run_of_another_config_is_refused(tmp_path, where):
    name = {"run": ["hydra.run.dir=here"], "sweep": ["-m", "sweep=s", "hydra.sweep.subdir=one", "curve=1"]}[where]
    arguments = [*name, *SMALL, "width=20", "steps=10000000"]
    process = start(tmp_path, *arguments)
    assert wait_for(lambda: list(tmp_path.rglob("checkpoint.pt")), process)
    kill(process)
    # Killed between the two renames of a checkpoint, it has the previous one alone.
    [directory] = {path.parent for path in tmp_path.rglob("checkpoint*.pt")}
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    status, text = command(tmp_path, *arguments, "lr=0.25")
    assert status == 1
    assert "lr=0.0005 there, 0.25 asked" in text
    assert "overwrite=true" in text
    assert "Traceback" not in text
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before
    status, text = command(tmp_path, *arguments[:-1], "steps=400", "lr=0.25", "overwrite=true")
    assert status == 0, text
    assert json.loads((directory / "result.json").read_text())["lr"] == 0.25


def test_a_refused_run_leaves_nothing(tmp_path):
    status, text = command(tmp_path, "width=0")
    assert (status, text) == (1, "error: width=0: must be a whole number >= 1 and <= 1e9\n")
    assert not list(tmp_path.iterdir())


def test_a_worker_in_its_imports_is_not_waited_for(tmp_path):
    process = start(tmp_path, *SWEEPS["torch"])
    assert wait_for(lambda: len(children(process.pid)) == 2, process)
    begun = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    text, _ = process.communicate(timeout=300)
    assert time.monotonic() - begun < 10  # its imports, which take longer on a busy machine, are not waited for
    assert process.returncode == 130
    assert "Traceback" not in text


def test_a_second_sigint_ends_at_once(tmp_path):
    process = start(tmp_path, *SMALL, "width=20", "steps=10000000", "workers=1")
    assert wait_for(lambda: steps(tmp_path), process)
    process.send_signal(signal.SIGSTOP)  # both come before it can do anything
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    process.communicate(timeout=30)
    assert time.monotonic() - begun < 10
    assert process.returncode == 130


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few MB, where this machine lets us mount one."""
    path = tmp_path / "multirun"
    path.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(path)], capture_output=True)
    if mount.returncode:
        pytest.skip("can't mount a file system here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_nothing_finished(tmp_path, small_disk):
    sweep = ["-m", "curve=1,4", *SMALL, "width=20", "sweep=s", "workers=1"]
    assert command(tmp_path, *sweep, "steps=400")[0] == 0
    before = results(small_disk)
    process = start(tmp_path, *sweep, "steps=40000")
    # The runs of another length are in directories of their own.
    assert wait_for(lambda: max(steps(small_disk).values()) > 1000, process)
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert text.count("No space left on device") >= 2
    assert "2 jobs failed" in text
    assert "Traceback" not in text
    filler.unlink()
    assert {name: found for name, found in results(small_disk).items() if name in before} == before
    status, text = command(tmp_path, *sweep, "steps=40000")
    assert status == 0, text
    logs = [path.read_text() for path in small_disk.rglob("train.log")]
    assert sum("training from step 0 to 40000" in log for log in logs) == 2
    assert sum(log.count(" to 40000") for log in logs) >= 4  # they went on from a checkpoint
    straight = tmp_path / "straight"
    straight.mkdir()
    assert command(straight, *sweep, "steps=40000")[0] == 0
    found = results(small_disk)
    assert {name: found[name] for name in found if name not in before} == results(straight / "multirun")


@contextlib.contextmanager
def taken_away(directory: Path):
    """As of a disk that was unmounted."""
    aside = directory.parents[2] / "aside"
    directory.rename(aside)
    yield
    shutil.rmtree(directory, ignore_errors=True)  # it has left word of its failure there
    aside.rename(directory)


@contextlib.contextmanager
def read_only(directory: Path):
    """Also for root, who may write where nobody may: a read-only mount of the directory over itself."""
    view = directory.parents[2] / "view"
    view.mkdir()

    def mount(*words: str) -> None:
        if subprocess.run(["mount", *words], capture_output=True).returncode:
            pytest.skip("can't mount a directory here")

    try:
        mount("--bind", str(directory), str(view))
        mount("-o", "remount,bind,ro", str(view))
        mount("--bind", str(view), str(directory))
        yield
    finally:
        for path in (directory, view):
            subprocess.run(["umount", "-l", str(path)], capture_output=True)


@pytest.mark.parametrize("lost", [pytest.param(taken_away, marks=pytest.mark.slow), read_only])
def test_a_directory_lost_in_mid_run_costs_that_run_alone(tmp_path, lost):
    sweep = ["-m", "curve=1,4", *SMALL, "width=20", "steps=30000", "sweep=s"]
    process = start(tmp_path, *sweep)
    try:
        assert wait_for(lambda: len(steps(tmp_path)) == 2, process)
        directory = next(path.parent for path in tmp_path.rglob("begun.json") if "curve=4" in str(path))
        with lost(directory):
            text, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "Traceback" not in text
    assert text.count(f"{directory.name}") >= 2  # at once, and at the end
    rows = {row["curve"]: row for row in table(tmp_path / "multirun/s")}
    assert rows["1"]["status"] == "finished"
    assert rows["4"]["status"] == "failed"
    status, text = command(tmp_path, *sweep)
    assert status == 0, text
    assert "1 of 2 jobs are finished already" in text
    assert re.findall(r"training from step (\d+)", (directory / "train.log").read_text())[-1] != "0"

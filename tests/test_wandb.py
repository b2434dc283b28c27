"""W&B, offline: what was logged is read back from its files; whatever W&B does, the result is there."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import changed, small
from fake_wandb import Server
from killed import SMALL, start, steps, wait_for

from fractal_ifs.config.run import Job
from fractal_ifs.runs import checkpoints, records
from fractal_ifs.runs import run as run_module
from fractal_ifs.runs.load import load
from fractal_ifs.runs.run import Run
from fractal_ifs.training import wandb_run
from fractal_ifs.training.train import train

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def newcomer(monkeypatch, tmp_path):
    """No account, no setting."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    (tmp_path / "home").mkdir()
    wandb_run.experience.reset()
    yield
    wandb_run.experience.reset()


@pytest.fixture
def no_memory():
    """W&B remembers the server that a process has spoken to, whatever the environment says later."""
    wandb.teardown()
    yield
    wandb.teardown()


def logged(directory):
    """The one W&B run below a directory, as W&B's own reader gives it: its state, and its rows."""
    [path] = directory.glob("wandb/*run-*/*.wandb")
    program = str(Path(sys.executable).with_name("wandb"))

    def inspect(*options):
        command = [program, "leet", "inspect", "--json", *options, str(path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    rows = [json.loads(line) for line in inspect().splitlines() if '"type":"history"' in line.replace(" ", "")]
    return json.loads(inspect("--summary")), [row["history"]["item"] for row in rows]


def run_jobs(tmp_path, *configs) -> Any:
    directories = [tmp_path / f"job{number}" for number in range(len(configs))]
    jobs = [Job(config, directory) for config, directory in zip(configs, directories, strict=True)]
    return directories, train(jobs, threads=1)


def test_two_runs_of_one_process_are_logged_apart(tmp_path):
    configs = [
        small(logger="wandb", sweep="a_sweep", fractal="vicsek", curve=4, lr=2e-3),
        small(logger="wandb", sweep="a_sweep", fractal="cantor2d", curve=1, seed=3),
    ]
    directories, runs = run_jobs(tmp_path, *configs)
    ids = set()
    for config, directory, run, tags in zip(configs, directories, runs, TAGS, strict=True):
        state, rows = logged(directory)
        record = records.read_record(directory)
        assert record is not None
        assert state["state"] == "finished"
        assert state["config"] == config.plain()  # resolved, and no other's
        assert state["summary"]["best_test_acc"] == record["best_test_acc"]  # a plain number
        assert state["summary"]["best_step"] == record["best_step"]
        assert state["summary"]["status"] == "finished"
        assert state["tags"] == tags
        assert state["run_id"] == run.wandb_id == checkpoints.read_checkpoint(directory)["wandb_id"]  # type: ignore[index]
        assert [row["step"] for row in rows] == [50, 100]  # optimizer steps, not calls
        assert [row["test_acc"] for row in rows] == [row[4] for row in run.history]
        assert [row["best_test_acc"] for row in rows][-1] == record["best_test_acc"]
        text = b"".join(path.read_bytes() for path in directory.glob("wandb/*run-*/*.wandb"))
        assert b"a_sweep" in text
        ids.add(state["run_id"])
    assert len(ids) == 2


TAGS = [["fractal=vicsek", "curve=4"], ["fractal=cantor2d", "curve=1"]]


def test_what_init_is_given(tmp_path, monkeypatch):
    given = []

    class Remembered:
        def __init__(self, **arguments):
            given.append(arguments)
            self.summary = {}

        def __getattr__(self, name):
            return lambda *_, **__: None

    monkeypatch.setattr(wandb, "init", lambda **arguments: Remembered(**arguments))
    [directory], _ = run_jobs(tmp_path, small(logger="wandb", sweep="a_sweep"))
    [arguments] = given
    assert arguments["mode"] == "offline"
    assert (arguments["group"], arguments["job_type"], arguments["project"]) == ("a_sweep", "mlp", "fractal_ifs")
    assert arguments["reinit"] == "create_new"
    assert arguments["dir"] == str(directory)


def test_a_run_that_goes_on_keeps_its_id(tmp_path):
    config = small(logger="wandb")

    def stop(training):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([Job(config, tmp_path / "a")], threads=1, report=stop)
    first = checkpoints.read_checkpoint(tmp_path / "a")
    [run] = train([Job(config, tmp_path / "a")], threads=1)
    assert first is not None
    assert not isinstance(run, Exception)
    assert run.wandb_id == first["wandb_id"]


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_wandb_that_breaks_costs_no_result(tmp_path, monkeypatch, caplog, where):
    def broken(*_, **__):
        raise RuntimeError("gone")

    if where == "init":
        monkeypatch.setattr(wandb, "init", broken)
    else:
        fake = type("Fake", (), {"log": lambda *_: None, "finish": lambda *_, **__: None, "define_metric": broken})
        fake.define_metric = lambda *_, **__: None  # type: ignore[attr-defined]
        fake.summary = {}  # type: ignore[attr-defined]
        setattr(fake, where, broken)
        monkeypatch.setattr(wandb, "init", lambda **_: fake())
    [directory], [run] = run_jobs(tmp_path, small(logger="wandb"))
    assert load(directory).record["status"] == "finished"
    assert [row[0] for row in run.history] == [50, 100]
    assert "W&B is away (RuntimeError: gone)" in caplog.text
    assert caplog.text.count("W&B is away") == 1  # said once


def test_without_wandb_installed(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    [directory], _ = run_jobs(tmp_path, small(logger="wandb"))
    assert load(directory).record["status"] == "finished"
    assert "results are in the run's directory" in caplog.text
    caplog.clear()
    run_jobs(tmp_path / "csv", small(logger="csv"))
    assert "W&B" not in caplog.text


def test_an_unreachable_host_falls_back_to_offline_within_the_bound_once(tmp_path, monkeypatch, caplog, no_memory):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("WANDB_MODE", "online")
    configs = [changed(small(logger="wandb", seed=seed), "logger.timeout", 3) for seed in (0, 1)]
    begun = time.monotonic()
    directories, _ = run_jobs(tmp_path, *configs)
    assert time.monotonic() - begun < 12  # the second run doesn't wait again
    assert caplog.text.count("W&B can't be reached") == 1
    for directory in directories:
        assert load(directory).record["status"] == "finished"
        assert list(directory.glob("wandb/offline-run-*"))


def test_a_network_that_goes_away_in_mid_run_is_waited_for_once(tmp_path, monkeypatch, caplog, no_memory):
    server = Server()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    configs = [changed(small(logger="wandb", seed=seed), "logger.timeout", 4) for seed in range(4)]
    jobs = [Job(config, tmp_path / f"job{number}") for number, config in enumerate(configs)]
    closed = []

    def away(_):
        if not closed:
            server.close()
            closed.append(time.monotonic())

    runs: Any = train(jobs[:3], threads=1, report=away)
    assert time.monotonic() - closed[0] < 10  # not 12
    for thread in threading.enumerate():  # what is left of W&B's waiting
        if not thread.daemon and thread is not threading.main_thread():
            thread.join(10)
    assert server.runs == {run.wandb_id for run in runs}
    for run in runs:
        assert run.status == "finished"
        assert list(run.directory.glob("wandb/run-*"))  # it was online
        assert [row["step"] for row in logged(run.directory)[1]] == [50, 100]  # for `wandb sync`
    assert caplog.text.count("W&B doesn't take what is left of a run") == 1
    train(jobs[3:], threads=1)
    assert list((tmp_path / "job3").glob("wandb/offline-run-*"))


def test_ctrl_c_between_a_measurement_and_its_row(tmp_path, monkeypatch):
    """The row is there, once; the same run goes on behind it."""
    evaluated, calls = Run.evaluated, []

    def signalled(self, *measured):
        row = evaluated(self, *measured)
        calls.append(row)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return row

    monkeypatch.setattr(Run, "evaluated", signalled)
    config = small(logger="wandb", eval_every=20)
    with pytest.raises(KeyboardInterrupt):
        train([Job(config, tmp_path)], threads=1)
    assert [row["step"] for row in logged(tmp_path)[1]] == [20, 40]
    [first] = tmp_path.glob("wandb/*run-*")
    shutil.move(first, tmp_path / "before")  # the reader below wants one
    train([Job(config, tmp_path)], threads=1)
    assert [row["step"] for row in logged(tmp_path)[1]] == [60, 80, 100]
    assert [row.step for row in calls] == [20, 40, 60, 80, 100]


def test_an_interrupted_sweep_does_not_wait_for_a_network_that_is_away(tmp_path):
    server = Server()
    keys = [word for word in SMALL if not word.startswith("logger=")]
    environment = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0123456789" * 4, "WANDB_MODE": "online"}
    process = start(tmp_path, "-m", "seed=0,1", *keys, "width=20", "steps=100000000", "sweep=s", **environment)
    assert wait_for(lambda: len(steps(tmp_path)) == 2, process)
    assert len(server.runs) == 2
    server.close()
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert time.monotonic() - begun < 10
    assert process.returncode == 130
    assert "interrupted: the same command goes on from here" in text
    assert "Traceback" not in text
    found = list(tmp_path.rglob("result.json"))
    assert len(found) == 2
    for path in found:
        assert json.loads(path.read_text())["status"] == "interrupted"
        last = (path.parent / "history.csv").read_text().splitlines()[-1]
        assert logged(path.parent)[1][-1]["step"] == int(last.split(",")[0])  # all is there for `wandb sync`


def test_the_mode(tmp_path, monkeypatch):
    assert wandb_run.mode(None) == "offline"
    assert wandb_run.mode("disabled") == "disabled"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert wandb_run.mode(None) == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_run.mode(None) == "offline"
    assert wandb_run.mode("online") == "online"
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_run.mode(None) == "online"
    (tmp_path / "netrc").write_text("not a netrc file")
    assert wandb_run.mode(None) == "offline"


def services(driver: int) -> list[int]:
    """The service processes of W&B that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == driver and b"wandb-core" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
    return found


def test_a_killed_service_costs_no_result(tmp_path):
    """SIGKILL to W&B's service process in mid-run: the runs end, and go on in a new one under the same ids."""
    keys = [word for word in SMALL if not word.startswith("logger=")]
    process = start(tmp_path, "-m", "seed=0,1", *keys, "width=20", "steps=40000", "sweep=s", WANDB_MODE="offline")
    assert wait_for(lambda: len(steps(tmp_path)) == 2 and services(process.pid), process)
    for service in services(process.pid):
        os.kill(service, signal.SIGKILL)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    assert text.count("W&B's service process has died") == 1
    assert "Traceback" not in text
    found = list(tmp_path.rglob("result.json"))
    assert len(found) == 2
    for path in found:
        assert json.loads(path.read_text())["status"] == "finished"
        # offline-run-TIME-ID, with -1 after it where two begin in one second
        assert {wandb.name.split("-")[3] for wandb in path.parent.glob("wandb/offline-run-*")} == {
            checkpoints.read_checkpoint(path.parent)["wandb_id"]  # pyright: ignore[reportOptionalSubscript]
        }


def test_a_run_that_fails_says_so_in_wandb(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "write_checkpoint", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    [directory], [error] = run_jobs(tmp_path, small(logger="wandb"))
    assert isinstance(error, OSError)
    state, _ = logged(directory)
    assert state["state"] == "failed"
    assert state["summary"]["status"] == "failed"
    record = records.read_record(directory)
    assert record is not None
    assert record["error"] == "OSError: [Errno 28] No space left"

"""W&B, offline: what was logged is read back from its files; whatever W&B does, the result is there."""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import changed, read_checkpoint, small
from damage import within
from fake_wandb import Server
from killed import SMALL, on_a_terminal, start, steps, wait_for

from fractal_ifs.config.run import Job
from fractal_ifs.engines.native import NativeEngine
from fractal_ifs.runs import records
from fractal_ifs.runs import run as run_module
from fractal_ifs.runs.history import Evaluation
from fractal_ifs.runs.load import load
from fractal_ifs.runs.records import Status
from fractal_ifs.runs.run import Run
from fractal_ifs.training import wandb_files, wandb_run, wandb_service
from fractal_ifs.training.train import train

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def newcomer(monkeypatch, tmp_path):
    """No account, no setting."""
    os.environ.pop("WANDB_SERVICE", None)  # W&B's own: put back after a test, it would name a service that has ended
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(wandb_run, "experience", wandb_run.Experience())


@pytest.fixture
def no_memory():
    """W&B remembers the server that a process has spoken to, whatever the environment says later."""
    wandb.teardown()
    with warnings.catch_warnings():
        # What stands for a service that was killed says so when it is forgotten.
        warnings.filterwarnings("ignore", "subprocess .* is still running", ResourceWarning)
        yield
        wandb.teardown()
        gc.collect()


def inspect(path, *options):
    """A file of W&B's, as its own reader gives it."""
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def rows_of(path):
    lines = [json.loads(line) for line in inspect(path).splitlines() if '"type":"history"' in line.replace(" ", "")]
    return [line["history"]["item"] for line in lines]


def logged(directory):
    """The one W&B run below a directory: its state, and its rows."""
    [path] = directory.glob("wandb/*run-*/*.wandb")
    return json.loads(inspect(path, "--summary")), rows_of(path)


def logged_in_all(directory):
    """The steps of all rows in the files below a directory, in their order."""
    paths = sorted(directory.glob("wandb/*run-*/*.wandb"), key=lambda path: path.parent.name)
    return [row["step"] for path in paths for row in rows_of(path)]


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
        plain = {name: value for name, value in config.plain().items() if value != {}}  # which W&B leaves out
        assert state["config"] == plain  # resolved, and no other's
        assert state["summary"]["best_test_acc"] == record["best_test_acc"]  # a plain number
        assert state["summary"]["best_step"] == record["best_step"]
        assert state["summary"]["status"] == "finished"
        assert state["tags"] == tags
        assert state["run_id"] == run.wandb_id == read_checkpoint(directory)["wandb_id"]  # type: ignore[index]
        assert [row["step"] for row in rows] == [50, 100]  # optimizer steps, not calls
        assert [row["test_acc"] for row in rows] == [row.test_acc for row in run.history]
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
    config = small(logger="wandb", sweep="a_sweep")
    [directory], _ = run_jobs(tmp_path, config)
    mine = replace(config.logger, group="mine", tags=("first try",), notes="how it was")
    run_jobs(tmp_path / "own", replace(config, logger=mine))
    arguments, own = given
    assert (own["group"], own["tags"][-1], own["notes"]) == ("mine", "first try", "how it was")
    assert arguments["tags"] == own["tags"][:-1]
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
    first = read_checkpoint(tmp_path / "a")
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
    assert [row.step for row in run.history] == [50, 100]
    assert "W&B is away (RuntimeError: gone)" in caplog.text
    assert caplog.text.count("W&B is away") == 1  # said once


def test_a_thread_that_cannot_begin_costs_no_result(tmp_path, monkeypatch, caplog):
    """As where a process may have no more threads."""
    start = threading.Thread.start

    def refuse(thread):
        if thread.name.startswith("W&B run"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    [outcome] = train([Job(small(logger="wandb"), tmp_path)], threads=1)
    assert isinstance(outcome, Run)
    assert outcome.status == Status.FINISHED
    assert "W&B is away (RuntimeError: can't start new thread)" in caplog.text


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
    directories, _ = run_jobs(tmp_path, *configs)
    assert caplog.text.count("W&B can't be reached") == 1  # the second run doesn't try again
    for directory in directories:
        assert load(directory).record["status"] == "finished"
        written(directory, read_checkpoint(directory)["wandb_id"], 2)  # pyright: ignore[reportOptionalSubscript]
        [path] = directory.glob("wandb/offline-run-*/*.wandb")
        assert [row["step"] for row in rows_of(path)] == [50, 100]  # for `wandb sync`


def test_a_network_that_goes_away_in_mid_run_costs_no_row(tmp_path, monkeypatch, caplog, no_memory):
    server = Server()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    configs = [changed(small(logger="wandb", seed=seed), "logger.timeout", 4) for seed in range(4)]
    jobs = [Job(config, tmp_path / f"job{number}") for number, config in enumerate(configs)]
    closed = []

    def away(_):
        if not closed:
            assert server.begun(3)
            server.close()
            closed.append(True)

    runs: Any = train(jobs[:3], threads=1, report=away)
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
    train([Job(config, tmp_path)], threads=1)
    assert logged_in_all(tmp_path) == [20, 40, 60, 80, 100]
    assert [row.step for row in calls] == [20, 40, 60, 80, 100]


@pytest.mark.slow
def test_an_interrupted_sweep_does_not_wait_for_a_network_that_is_away(tmp_path):
    server = Server()
    keys = [word for word in SMALL if not word.startswith("logger=")]
    environment = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0123456789" * 4, "WANDB_MODE": "online"}
    process = start(tmp_path, "-m", "seed=0,1", *keys, "width=20", "steps=100000000", "sweep=s", **environment)
    assert wait_for(lambda: len(steps(tmp_path)) == 2, process)
    assert server.begun(2)
    server.close()
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)  # W&B itself would wait for the network
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
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert text.count("W&B's service process has died") == 1
    assert "Traceback" not in text
    found = list(tmp_path.rglob("result.json"))
    assert len(found) == 2
    for path in found:
        assert json.loads(path.read_text())["status"] == "finished"
        # offline-run-TIME-ID, with -1 after it where two begin in one second
        assert {wandb.name.split("-")[3] for wandb in path.parent.glob("wandb/offline-run-*")} == {
            read_checkpoint(path.parent)["wandb_id"]  # pyright: ignore[reportOptionalSubscript]
        }


@pytest.mark.parametrize("service", ["3-1-unix-/nowhere/socket", "of another version"])
def test_a_service_of_another_process_that_has_ended_is_left(tmp_path, monkeypatch, caplog, no_memory, service):
    """W&B passes its service on in the environment, for instance from a notebook to the commands that it starts."""
    monkeypatch.setenv("WANDB_SERVICE", service)
    directories, _ = run_jobs(tmp_path, *(small(logger="wandb", seed=seed) for seed in (0, 1)))
    for directory in directories:
        assert [row["step"] for row in logged(directory)[1]] == [50, 100]
    assert caplog.text.count("W&B's service process has died: going on in a new one") == 1
    assert "W&B is away" not in caplog.text


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


# A W&B that is slow, or hangs


class Fake:
    """A W&B run that remembers its rows. ``calls``: what is called in the place of its methods, by their names."""

    def __init__(self, **calls: Any):
        self.rows, self.summary, self.ended, self.calls = [], {}, False, calls

    def define_metric(self, *_: Any, **__: Any) -> None:
        self.calls.get("define_metric", int)()

    def log(self, row: dict[str, Any]) -> None:
        self.calls.get("log", int)()
        self.rows.append(row["step"])

    def finish(self, **_: Any) -> None:
        self.calls.get("finish", int)()
        self.ended = True


@pytest.fixture
def quick(monkeypatch):
    """Deadlines in hundredths of a second, and a service whose end fails the calls that wait for it."""
    killed = threading.Event()
    for module, name in ((wandb_service, "POLL"), (wandb_run, "ANSWER_SECONDS"), (wandb_run, "BEGIN_SECONDS")):
        monkeypatch.setattr(module, name, 0.01)
    monkeypatch.setattr(wandb_service, "kill", killed.set)
    monkeypatch.setattr(wandb_service, "_calls", set())
    monkeypatch.setattr(wandb_service, "_watch", None)  # this test's own, which polls as often
    monkeypatch.setattr(wandb, "teardown", lambda: None)
    return killed


def begins(monkeypatch, *runs: Any) -> list[dict[str, Any]]:
    """Let ``wandb.init`` return these in turn, or raise or call them. Returns the arguments that it is given."""
    given, left = [], list(runs)

    def init(**arguments: Any) -> Any:
        given.append(arguments)
        found = left.pop(0)
        return found() if callable(found) else found

    monkeypatch.setattr(wandb, "init", init)
    return given


def test_training_does_not_wait_for_a_slow_wandb(tmp_path, monkeypatch):
    trained = threading.Event()
    fake = Fake(log=lambda: trained.wait(60) or pytest.fail("training waits"))
    begins(monkeypatch, fake)
    done = []

    def report(rounds):
        if done == [50]:
            trained.set()
        done.extend(row.step for run, _ in rounds.active.values() for row in run.history)

    [run] = train([Job(small(logger="wandb"), tmp_path)], threads=1, report=report)
    assert not isinstance(run, Exception)
    assert fake.rows == [50, 100]
    assert fake.ended
    names = ("best_test_acc", "best_step", "final_test_acc", "last10_test_acc", "final_train_acc")
    assert fake.summary == {name: run.record()[name] for name in names} | {"status": "finished"}


def test_runs_in_training_do_not_wait_for_those_that_end(tmp_path, monkeypatch):
    """Where too many are still ending in W&B the next one waits for them, but not those that are in training."""
    monkeypatch.setattr(wandb_run, "ENDING", 0)
    monkeypatch.setattr(NativeEngine, "saturated", lambda self, runs, waiting: len(runs) >= 2)
    trained = threading.Event()
    slow = Fake(finish=lambda: trained.wait(60) or pytest.fail("training waits"))
    begins(monkeypatch, slow, Fake(), Fake())
    jobs = [Job(small(logger="wandb", steps=steps), tmp_path / str(n)) for n, steps in enumerate((50, 200, 50))]

    def report(rounds):
        if not trained.is_set() and any(
            run.step == 200 for run in rounds.ended.values() if not isinstance(run, Exception)
        ):
            assert len(rounds.waiting) == 1
            trained.set()

    outcomes = train(jobs, threads=1, report=report)
    assert [getattr(outcome, "step", outcome) for outcome in outcomes] == [50, 200, 50]


def test_runs_end_in_wandb_side_by_side(tmp_path, monkeypatch):
    together = threading.Barrier(3, timeout=60)
    fakes = [Fake(finish=together.wait) for _ in range(3)]
    begins(monkeypatch, *fakes)
    run_jobs(tmp_path, *(small(logger="wandb", seed=seed) for seed in range(3)))
    assert all(fake.ended for fake in fakes)


@pytest.mark.parametrize("where", ["init", "define_metric", "log", "finish"])
def test_a_service_that_hangs_is_ended_and_another_one_goes_on(tmp_path, monkeypatch, caplog, quick, where):
    def hang():
        assert quick.wait(60)
        raise ConnectionResetError

    first, second = Fake(**{where: hang}), Fake()
    given = begins(monkeypatch, hang if where == "init" else first, second)
    config = changed(small(logger="wandb"), "logger.timeout", 0.01)
    [_], [run] = run_jobs(tmp_path, config)
    assert (run.status, second.rows, second.ended) == ("finished", [50, 100], True)
    assert [arguments["mode"] for arguments in given] == ["offline", "offline"]
    assert given[0]["id"] == given[1]["id"] == run.wandb_id
    assert caplog.text.count("W&B's service process doesn't answer: going on offline in a new one") == 1


def test_a_call_that_never_returns_is_left_alone(tmp_path, monkeypatch, caplog, quick):
    monkeypatch.setattr(wandb_service, "GRACE", 0.1)
    ever = threading.Event()
    begins(monkeypatch, ever.wait)
    configs = [changed(small(logger="wandb", seed=seed), "logger.timeout", 0.01) for seed in (0, 1)]
    try:
        for number, config in enumerate(configs):
            _, [run] = run_jobs(tmp_path / str(number), config)
            assert run.status == "finished"
        assert caplog.text.count("W&B doesn't answer: going on without it") == 1
    finally:
        ever.set()


def test_time_in_which_this_process_was_stopped_does_not_count(monkeypatch, quick):
    monkeypatch.setattr(wandb_service, "POLL", 0.001)
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 3600)
    with wandb_service.within(60):
        time.sleep(0.1)
    assert not quick.is_set()


# What W&B lacks


def written(directory, id, rows):
    """Wait until so many rows are in the files of a run: W&B's service may write the last ones after its end."""
    deadline = time.monotonic() + 300
    while len(wandb_files.logged_steps(directory, id) or ()) < rows:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_rows_in_its_files_are_those_that_its_own_reader_finds(tmp_path):
    """Of a file of several blocks, whole and cut off anywhere, as a kill leaves it."""
    config = small(logger="wandb", steps=20_000, eval_every=100, width=2, depth=1)
    [directory], [run] = run_jobs(tmp_path, config)
    [path] = directory.glob("wandb/*run-*/*.wandb")
    expected = set(range(100, 20_001, 100))
    written(directory, run.wandb_id, 200)
    whole = path.read_bytes()
    assert len(whole) > 2 * wandb_files.BLOCK
    for cut in (len(whole) * 2 // 3, wandb_files.BLOCK + 3, wandb_files.BLOCK, 7, 0):
        path.write_bytes(whole[:cut])
        steps = wandb_files.logged_steps(directory, run.wandb_id)
        assert steps is not None
        assert steps == (set(logged_in_all(directory)) if cut > 7 else set())
        assert steps < expected
    path.write_bytes(whole[:6] + b"\x01" + whole[7:])  # another format
    assert wandb_files.logged_steps(directory, run.wandb_id) is None


def test_a_run_that_goes_on_logs_what_wandb_lacks(tmp_path):
    """A kill of everything costs what W&B's service had not yet written."""
    config = small(logger="wandb", steps=20_000, eval_every=100, width=2, depth=1)
    rounds = []

    def stop(_):
        rounds.append(1)
        if len(rounds) == 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([Job(config, tmp_path)], threads=1, report=stop)
    [path] = tmp_path.glob("wandb/*run-*/*.wandb")
    id = path.stem.removeprefix("run-")
    written(tmp_path, id, 150)
    path.write_bytes(path.read_bytes()[: wandb_files.BLOCK])
    there = logged_in_all(tmp_path)
    assert 0 < len(there) < 150
    train([Job(config, tmp_path)], threads=1)
    written(tmp_path, id, 200)
    assert logged_in_all(tmp_path) == list(range(100, 20_001, 100))


def test_online_the_server_says_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    rows = [Evaluation(step, 0.0, 0.0, 0.0, step / 100) for step in (10, 20, 30, 40)]
    fake = Fake()
    fake.step = 2  # type: ignore[attr-defined]
    begins(monkeypatch, fake)
    run = wandb_run.WandbRun(small(logger="wandb"), tmp_path, "id", rows)
    run.finish(Status.FINISHED)
    assert wandb_run.wait(seconds=60)
    assert fake.rows == [30, 40]


# No login


def test_online_without_a_login_is_offline_and_told(monkeypatch, caplog):
    assert wandb_run.mode("online") == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert wandb_run.mode(None) == "offline"
    assert caplog.text.count("W&B has no login here") == 1


def test_nobody_is_asked_for_a_login(tmp_path, monkeypatch):
    """With ``export WANDB_MODE=``, which is none."""
    monkeypatch.setenv("WANDB_MODE", "")
    keys = [word for word in SMALL if not word.startswith("logger=")]
    process, terminal = on_a_terminal(tmp_path, *keys, "width=8", "steps=400", "logger.mode=online")
    text = b""
    with contextlib.suppress(OSError):  # its other side is closed in the end
        while part := os.read(terminal, 1 << 16):
            text += part
    os.close(terminal)
    assert process.wait(300) == 0
    assert text.count(b"W&B has no login here") == 1
    assert b"best test accuracy" in text
    assert list(tmp_path.rglob("wandb/offline-run-*"))


# The real service, stopped


def logging(directory, steps_asked: int) -> subprocess.Popen:
    """A sweep of two runs, once W&B's service writes their files."""
    keys = [word for word in SMALL if not word.startswith(("logger=", "eval_every="))]
    keys += ["width=20", f"steps={steps_asked}", "eval_every=100", "sweep=s", "logger.timeout=1"]
    process = start(directory, "-m", "seed=0,1", *keys, WANDB_MODE="offline")
    wait_for(lambda: len(list(directory.rglob("*.wandb"))) == 2 and len(steps(directory)) == 2, process)
    return process


def stopped(directory, steps_asked: int) -> subprocess.Popen:
    """The same, and its service is stopped."""
    process = logging(directory, steps_asked)
    assert process.poll() is None
    for service in services(process.pid):
        os.kill(service, signal.SIGSTOP)
    return process


@pytest.mark.slow
def test_a_stopped_service_costs_no_result_and_no_row(tmp_path):
    process = stopped(tmp_path, 80_000)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert text.count("W&B's service process doesn't answer: going on offline in a new one") == 1
    assert "Traceback" not in text
    for path in tmp_path.rglob("result.json"):
        assert json.loads(path.read_text())["status"] == "finished"
        assert logged_in_all(path.parent) == list(range(100, 80_001, 100))


@pytest.mark.slow
def test_a_stopped_service_does_not_hold_up_the_end(tmp_path):
    process = stopped(tmp_path, 100_000_000)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 143, text
    assert text.endswith("interrupted: the same command goes on from here\n")
    assert "Traceback" not in text
    assert not services(process.pid)


@pytest.mark.slow
def test_a_sweep_that_is_killed_with_the_service_and_goes_on_has_every_row_once(tmp_path):
    process = logging(tmp_path, 80_000)
    assert process.poll() is None
    for each in (process.pid, *services(process.pid)):
        os.kill(each, signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.rglob("result.json"))
    process = logging(tmp_path, 80_000)  # the same command
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    ended = list(tmp_path.rglob("result.json"))
    assert len(ended) == 2
    for path in ended:
        assert logged_in_all(path.parent) == list(range(100, 80_001, 100))


def test_what_stands_in_the_place_of_its_files_is_not_waited_for(tmp_path):
    """In a received run there may be a pipe."""
    folder = tmp_path / "wandb" / "offline-run-20260101_000000-abc"
    folder.mkdir(parents=True)
    assert wandb_files.logged_steps(tmp_path, "abc") == set()
    os.mkfifo(folder / "run-abc.wandb")
    with within(5):
        assert wandb_files.logged_steps(tmp_path, "abc") is None

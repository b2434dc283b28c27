"""Sweeps by the command line: what every job leaves, what is refused, what a failure costs."""

import contextlib
import csv
import errno
import json
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import files as files_in
from conftest import small

from fractal_ifs import files
from fractal_ifs.config.run import Job
from fractal_ifs.results.cells import form_cells
from fractal_ifs.results.numbers import LAST10
from fractal_ifs.results.rows import read_runs, row_of
from fractal_ifs.results.text_table import csv_of
from fractal_ifs.runs import locks
from fractal_ifs.runs.records import RunRecord, Status, read_record, read_stored, unmeasured, version, write_record
from fractal_ifs.runs.run import Run
from fractal_ifs.sweeps import other_names
from fractal_ifs.sweeps.driver import begin_command
from fractal_ifs.sweeps.other_names import found_there
from fractal_ifs.sweeps.status import status
from fractal_ifs.sweeps.sweep import train_jobs
from fractal_ifs.sweeps.table import show_table
from fractal_ifs.sweeps.worker import Worker, WorkerDied, left
from fractal_ifs.training import signals
from fractal_ifs.training.rounds import SweepRounds
from fractal_ifs.training.train import train

QUICK = ["width=8", "depth=2", "steps=60", "eval_every=30", "data.train_size=1000", "data.test_size=200", "logger=csv"]
GRID = ["-m", "fractal=vicsek", "curve=1,4,6", *QUICK, "sweep=grid"]


def results(tmp_path, sweep="grid"):
    """Each run's record, by the values of the given key."""
    return {
        path.parent: json.loads(path.read_text())
        for path in sorted((tmp_path / "multirun" / sweep).rglob("result.json"))
    }


def by(key, tmp_path, sweep="grid"):
    return {record[key]: record for record in results(tmp_path, sweep).values()}


def table(tmp_path, sweep="grid"):
    with open(tmp_path / "multirun" / sweep / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def refused(ended):
    """The reason, in one line, without a traceback."""
    assert isinstance(ended.status, str)
    assert ended.status.startswith("error: ")
    assert "Traceback" not in ended.out + ended.err
    return ended.status


def interrupt(*_, **__):
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_while_the_table_is_written_leaves_the_old_one(command, tmp_path, monkeypatch):
    one = ["-m", "curve=1", *QUICK, "sweep=grid"]
    assert command(*one).status == 0
    before = table(tmp_path)

    def replace(old, new, replace=os.replace):
        interrupt() if new.name == "results.csv" else replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", replace)
        ended = command(*one)
    assert (ended.status, ended.err) == (130, "interrupted: the same command goes on from here\n")
    assert "Traceback" not in ended.err
    assert table(tmp_path) == before
    assert {path.name for path in (tmp_path / "multirun" / "grid").iterdir() if path.is_file()} == {
        "multirun.yaml",
        "results.csv",
    }


def test_a_signal_whose_exception_python_ignored_is_heeded(command, tmp_path, monkeypatch):
    """As it does while it forks, where a command starts git or a worker."""
    admit = SweepRounds._admit

    class Ignoring:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    def ignoring(self):
        if not caught:
            caught.append(True)
            Ignoring()
        admit(self)

    caught = []

    monkeypatch.setattr(SweepRounds, "_admit", ignoring)
    ended = command("-m", "curve=1", *QUICK, "sweep=grid")
    assert ended.status == 143
    assert "Traceback" not in ended.out + ended.err
    assert [row["status"] for row in table(tmp_path)] == ["interrupted"]


def test_what_a_signal_breaks_is_told_as_an_interrupt(command, monkeypatch):
    """It may come in the middle of a library's work, which then fails in its own way."""
    import fractal_ifs.train

    def broken(*_, **__):
        with contextlib.suppress(KeyboardInterrupt):
            interrupt()
        raise AttributeError("'NoneType' object has no attribute 'flags'")

    monkeypatch.setattr(fractal_ifs.train, "check_trust", broken)
    ended = command("-m", "curve=1", *QUICK, "sweep=grid")
    assert (ended.status, ended.err) == (130, "interrupted: the same command goes on from here\n")


def test_a_table_that_cannot_be_written_is_a_failure_of_the_command(command, tmp_path, monkeypatch):
    one = ["-m", "curve=1", *QUICK, "sweep=grid"]

    def replace(old, new, replace=os.replace):
        if new.name == "results.csv":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", replace)
        text = refused(command(*one))
    assert text == "error: multirun/grid has no table of this sweep; the same command writes it"
    assert command(*one).status == 0
    assert [row["status"] for row in table(tmp_path)] == ["finished"]


def test_a_disk_that_fails_after_the_record_leaves_the_record(command, tmp_path, monkeypatch):
    """The run's files are whole, and the next command takes it as finished."""
    one = ["-m", "curve=1", *QUICK, "sweep=grid"]

    def sync(directory):
        if (directory / "result.json").exists():
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync", sync)
        ended = command(*one)
    assert ended.status == "error: 1 job failed"
    assert ended.out.count("OSError: [Errno 5] Input/output error") + ended.err.count("[Errno 5]") == 1
    assert "Error executing job" not in ended.err
    [directory] = results(tmp_path)
    assert results(tmp_path)[directory]["status"] == "finished"
    (directory / ".lock").touch()  # as of one that was killed there
    assert (directory / "begun.json").exists()
    ended = command(*one)
    assert ended.status == 0
    assert "1 of 1 jobs are finished already" in ended.out + ended.err
    assert not {".lock", "begun.json"} & {path.name for path in directory.iterdir()}


def test_a_finished_sweep_does_not_wait_for_torch(command, tmp_path):
    one = ["-m", "curve=1,4", *QUICK, "sweep=grid"]
    assert command(*one).status == 0
    code = "import sys; from fractal_ifs.train import main; main(); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *one], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 jobs are finished already" in done.stdout + done.stderr


def test_a_second_interrupt_ends_at_once_also_while_the_table_is_written(command, tmp_path, monkeypatch):
    def end(status):
        raise SystemExit(status)

    monkeypatch.setattr(signals.os, "_exit", end)
    monkeypatch.setattr("fractal_ifs.sweeps.sweep.execute", interrupt)
    monkeypatch.setattr("fractal_ifs.sweeps.table.frame", interrupt)
    ended = command("-m", "curve=1", *QUICK, "sweep=grid")
    assert ended.status == 130
    assert "Traceback" not in ended.err


def test_a_signal_held_back_waits_though_another_thread_takes_it():
    """As one of numpy's does. A process that starts meanwhile gets all that it is to read."""
    done, over = [], threading.Event()

    def interrupted():
        with signals.held_back():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            done.append("within")
        done.append("after")

    other = threading.Thread(target=over.wait)
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt), signals.ending():
            interrupted()
    finally:
        over.set()
        other.join()
    assert done == ["within"]


def test_workers_need_no_shared_memory(tmp_path, monkeypatch):
    """As where /dev/shm is read-only."""

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("multiprocessing.heap.Arena.__init__", refuse)
    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refuse)
    worker = Worker(None, 0)
    job = Job(small(), tmp_path / "run")
    worker.begin([0], [job])
    heard: Any = None
    while not isinstance(heard, list):
        heard = worker.heard([job])
    assert [type(outcome) for outcome in heard] == [RunRecord]
    worker.connection.close()
    worker.join([job])


def test_no_worker_goes_on_where_its_driver_ends_between_two_outcomes(tmp_path, monkeypatch):
    """A signal comes while the driver writes of a run that has ended: the other worker saves its run, and ends."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fractal_ifs.sweeps.progress.Progress.group_ended", interrupted)
    jobs = [Job(small(engine="torch", workers=2, steps=steps), tmp_path / str(steps)) for steps in (50, 10**6)]
    with pytest.raises(KeyboardInterrupt):
        train_jobs(jobs, "local")
    for child in multiprocessing.active_children():  # the first one was dismissed, and may be ending still
        child.join(300)
    assert multiprocessing.active_children() == []
    [short, long] = (read_record(tmp_path / str(steps)) for steps in (50, 10**6))
    assert short is not None
    assert short.status == Status.FINISHED
    assert long is None or long.status == Status.INTERRUPTED  # None: it was still importing


def test_of_a_dead_worker_no_older_record_is_an_outcome(tmp_path):
    """With ``overwrite=true`` a job that had not begun still has the record of the attempt before."""
    train_jobs([Job(small(), tmp_path)])
    before, job = version(tmp_path), Job(small(overwrite=True), tmp_path)
    assert isinstance(left(job, WorkerDied("it was killed"), before), WorkerDied)
    train_jobs([job])
    assert isinstance(left(job, WorkerDied("it was killed"), before), RunRecord)
    assert isinstance(left(Job(small(), tmp_path), WorkerDied("it was killed"), version(tmp_path)), RunRecord)


def test_the_record_of_a_dead_workers_run_says_how_far_it_was(tmp_path):
    """So that tables and ``report status`` know it as failed, and not as still running."""
    run = Run(small(steps=100, eval_every=50), tmp_path)
    run.step = run.loss_steps = 50
    run.evaluated(0.6, 0.5, {})
    run.save()
    assert isinstance(left(Job(run.config, tmp_path), WorkerDied("it was killed")), WorkerDied)
    record = read_record(tmp_path)
    assert record is not None
    assert (record.status, record.steps) == (Status.FAILED, 50)
    assert status(tmp_path).states == {Status.FAILED: 1}


def test_an_error_of_none_of_the_runs_interrupts_them(tmp_path):
    def full(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        train([Job(small(steps=10**6), tmp_path)], threads=1, report=full)
    record = read_record(tmp_path)
    assert record is not None
    assert record.status == Status.INTERRUPTED


def test_a_second_command_is_refused_before_anything_is_written(command, tmp_path):
    """Not the sweep's ``multirun.yaml``, nor what Hydra writes of a single run."""
    single = ["curve=1", *QUICK, "hydra.run.dir=one"]
    assert command(*GRID).status == 0
    assert command(*single).status == 0
    for words, directory in (([*GRID, "seed=0,1"], tmp_path / "multirun" / "grid"), (single, tmp_path / "one")):
        before = files_in(directory)
        lock = locks.of_directory(directory, "run")
        again = command(*words, "overwrite=true")
        lock.release()
        assert "trains this" in refused(again)
        assert files_in(directory) == before


def test_a_config_is_not_written_through_a_link(command, tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    folder = tmp_path / "multirun" / "grid" / "one" / "words"
    folder.mkdir(parents=True)
    (folder / "config.yaml").symlink_to(precious)
    ended = command("-m", "curve=1", *QUICK, "sweep=grid", "hydra.sweep.subdir=one", "hydra.output_subdir=words")
    assert ended.status != 0
    assert precious.read_text() == "mine"


def test_a_job_in_a_deeper_directory_is_queued_where_its_sweep_is_driven(command, tmp_path):
    subdir = "hydra.sweep.subdir='${curve.name}/${seed}'"
    assert command("-m", "curve=1,4", *QUICK, "sweep=grid", subdir).status == 0
    run = tmp_path / "multirun" / "grid" / "4" / "0"
    for path in run.iterdir():
        if path.is_file():
            path.unlink()
    assert status(tmp_path).states == {"finished": 1, "waiting": 1}
    lock = locks.of_directory(tmp_path / "multirun" / "grid", "sweep")
    assert status(tmp_path).states == {"finished": 1, "queued": 1}
    lock.release()


def test_a_pipe_in_the_place_of_a_history_is_not_waited_for(tmp_path):
    (tmp_path / ".hydra").mkdir()
    os.mkfifo(tmp_path / "history.csv")
    assert unmeasured(tmp_path) == {}


def test_a_refused_command_shows_no_table_of_an_earlier_one(command):
    words = ["-m", "curve=1", *QUICK, "sweep=grid"]
    assert "best test accuracy" in command(*words).out
    ended = command(*words, "seed=-1")
    assert "seed=-1: must be" in str(ended.status)
    assert ended.out == ""


def test_jobs_in_directories_of_their_own_fill_one_kept_table(command, tmp_path):
    """A relative path is that of the command."""
    words = ["-m", "curve=1", *QUICK, "sweep=grid", "hydra/launcher=basic", "hydra.job.chdir=true", "kept=kept.csv"]
    assert command(*words, "seed=0,1").status == 0
    [table] = tmp_path.rglob("kept.csv")
    assert table.parent == tmp_path
    assert len(table.read_text().splitlines()) == 3


def test_a_whole_number_with_zeros_before_it_is_that_number(command, tmp_path):
    words = ["-m", *QUICK, "sweep=tests"]
    assert "the sweep has a job twice" in str(command(*words, "seed=0,00,1").status)
    assert command(*words, "seed=00,01").status == 0
    assert sorted(row["seed"] for row in table(tmp_path, "tests")) == ["0", "1"]


def test_a_key_that_a_sweep_was_begun_without_joins_it(command, tmp_path):
    """The runs that are there have its default, under names without it: they aren't trained again."""
    assert command(*GRID).status == 0
    before = {path.parent: path.stat().st_mtime_ns for path in (tmp_path / "multirun" / "grid").glob("*/result.json")}
    ended = command(*GRID, "seed=0,1")
    assert ended.status == 0
    assert "3 of 6 jobs are finished already: skipped" in ended.out
    after = {path.parent: path.stat().st_mtime_ns for path in (tmp_path / "multirun" / "grid").glob("*/result.json")}
    assert len(after) == 6
    assert all(after[path] == moment for path, moment in before.items())
    assert sorted((row["curve"], row["seed"]) for row in table(tmp_path)) == [(c, s) for c in "146" for s in "01"]
    assert not [path for path in after if "seed=0" in path.name]
    again = command(*GRID, "seed=0", "depth=2")  # asked for in more words, and in another order
    assert "3 of 3 jobs are finished already: skipped" in again.out


def test_runs_that_were_moved_into_a_sweep_are_found_by_another_name(command, tmp_path, monkeypatch):
    """Also those that a killed command has trained since the sweep's table; of others no record is read for that."""
    multirun = tmp_path / "multirun"
    for name, curves in (("first", "1,5"), ("second", "4,6")):
        assert command("-m", *QUICK, f"curve={curves}", f"sweep={name}").status == 0
    for path in (multirun / "second").glob("curve*"):
        path.rename(multirun / "first" / path.name)
    walked: list[str] = []
    read = other_names.understood
    monkeypatch.setattr(other_names, "understood", lambda path: walked.append(path.name) or read(path))
    ended = command("-m", *QUICK, "curve=1,4,5,6", "seed=0,1", "sweep=first")
    assert "4 runs there by another name" in ended.out
    assert "4 of 8 jobs are finished already" in ended.out
    assert [name[:7] for name in walked[:2]] == ["curve=4", "curve=6"]
    assert len(walked) == 2 + 4  # and each of those that are taken
    assert len(table(tmp_path, "first")) == 8
    walked.clear()
    assert "8 of 8 jobs are finished already" in command("-m", *QUICK, "curve=1,4,5,6", "seed=0,1", "sweep=first").out
    assert "2 of 2 jobs are finished" in command("-m", *QUICK, "depth=2", "curve=4,6", "seed=0", "sweep=first").out
    assert len(walked) == 4 + 2


def test_a_run_beside_one_that_the_table_names_is_found(tmp_path):
    """As with directories in two storeys, hydra.sweep.subdir='${width}/${lr}'."""
    sweep = tmp_path / "s"
    train_jobs([Job(small(seed=seed), sweep / "8" / str(seed)) for seed in (0, 1)])
    (sweep / "multirun.yaml").touch()
    row = row_of(sweep / "8" / "0", read_stored(sweep / "8" / "0").record) | {"directory": "8/0"}
    (sweep / "results.csv").write_bytes(csv_of(pd.DataFrame([row])))
    jobs = [Job(small(seed=seed), sweep / f"asked{seed}") for seed in (0, 1)]
    assert found_there(jobs, [sweep] * 2) == {0: sweep / "8" / "0", 1: sweep / "8" / "1"}


def test_a_table_leads_to_no_directory_of_another_sweep(tmp_path):
    """Nor to a run of another config, nor to one that another job has."""
    sweep, job = tmp_path / "s", Job(small(), tmp_path / "s" / "asked")
    train_jobs([Job(small(), path) for path in (sweep / "there", tmp_path / "aside")])
    (sweep / "multirun.yaml").touch()
    row = row_of(sweep / "there", read_stored(sweep / "there").record)
    (sweep / "there").rename(tmp_path / "moved")
    for where in (str(tmp_path / "aside"), "../aside", "gone"):
        (sweep / "results.csv").write_bytes(csv_of(pd.DataFrame([row | {"directory": where}])))
        assert found_there([job], [sweep]) == {}
    (tmp_path / "moved").rename(sweep / "there")
    assert found_there([job], [sweep]) == {0: sweep / "there"}  # which the table doesn't name
    (sweep / "results.csv").write_bytes(csv_of(pd.DataFrame([row | {"directory": "there"}])))
    assert found_there([job], [sweep]) == {0: sweep / "there"}
    assert found_there([job, Job(small(), sweep / "there")], [sweep, sweep]) == {}
    assert found_there([Job(small(seed=1), job.directory)], [sweep]) == {}
    assert found_there([Job(small(overwrite=True), job.directory)], [sweep]) == {}
    asked = {"measures": ("val_acc",), "objective": "val_acc", "data__val_size": 100}
    assert found_there([Job(small(**asked), job.directory)], [sweep]) == {}  # it would be refused there
    (sweep / "results.csv").write_bytes(csv_of(pd.DataFrame([row | {"directory": "gone"}])))
    os.utime(sweep / "multirun.yaml", (2**32, 2**32))  # a command has begun since, which was killed
    assert found_there([job], [sweep]) == {0: sweep / "there"}
    (sweep / "there").rename(sweep / "below")
    (sweep / "below" / "multirun.yaml").write_text("")
    (sweep / "there").mkdir()
    (sweep / "below").rename(sweep / "there" / "below")
    (sweep / "there" / "multirun.yaml").write_text("")
    assert found_there([job], [sweep]) == {}


def test_a_sweep_joins_and_is_refused(command, tmp_path):
    """One directory's life: trained, left alone, joined by more jobs, refused to another config."""
    ended = command(*GRID)
    assert ended.status == 0
    found = results(tmp_path)
    assert len(found) == 3
    for directory, record in found.items():
        assert {path.name for path in (directory / ".hydra").iterdir()} == {
            "config.yaml",
            "hydra.yaml",
            "overrides.yaml",
        }
        assert f"curve={record['curve']}" in (directory / ".hydra" / "overrides.yaml").read_text()
        assert "width: 8" in (directory / ".hydra" / "config.yaml").read_text()
        assert "${" not in (directory / ".hydra" / "config.yaml").read_text()  # resolved
        assert (directory / "history.csv").exists()
        assert record["status"] == "finished"
        assert record["steps"] == 60
    rows = table(tmp_path)
    assert {row["curve"] for row in rows} == {"1", "4", "6"}
    for row in rows:
        record = by("curve", tmp_path)[row["curve"]]
        assert float(row["best_test_acc"]) == record["best_test_acc"]
        assert f"{record['best_test_acc']:.4f}" in ended.out  # the table on the terminal
    sweep = tmp_path / "multirun" / "grid"

    before = {directory: files_in(directory) for directory in found}
    again = command(*GRID)
    assert again.status == 0
    assert "3 of 3 jobs are finished already" in again.out
    assert {directory: files_in(directory) for directory in found} == before
    assert again.out.count("best test accuracy") == ended.out.count(
        "best test accuracy"
    )  # the table comes all the same

    joined = command(*[a.replace("curve=1,4,6", "curve=4,5") for a in GRID])
    assert joined.status == 0
    assert "1 of 2 jobs are finished already" in joined.out
    assert len(results(tmp_path)) == 4
    assert {row["curve"] for row in table(tmp_path)} == {"1", "4", "5", "6"}
    for directory in found:
        assert files_in(directory) == before[directory]

    # The same directory, asked for another config.
    [(directory, record)] = [(d, r) for d, r in found.items() if r["curve"] == "4"]
    before_all = files_in(sweep, "**/curve*/**/*")
    changed = command(
        "-m", "fractal=vicsek", "curve=4", *QUICK, "lr=0.25", "sweep=grid", f"hydra.sweep.subdir='{directory.name}'"
    )
    assert f"lr={record['lr']} there, 0.25 asked" in refused(changed)
    assert files_in(sweep, "**/curve*/**/*") == before_all


def test_the_basic_launcher_gives_the_same_numbers(command, tmp_path):
    assert command(*GRID).status == 0
    ended = command(*GRID[:-1], "sweep=basic", "hydra/launcher=basic")
    assert ended.status == 0
    fused, basic = by("curve", tmp_path), by("curve", tmp_path, "basic")
    assert fused.keys() == basic.keys() == {"1", "4", "6"}
    for curve, record in basic.items():
        for key in ("best_test_acc", "best_step", "final_test_acc", "steps", "status", "fingerprint", "engine"):
            assert record[key] == fused[curve][key]
        assert f"{record['best_test_acc']:.4f}" in ended.out
    assert len(table(tmp_path, "basic")) == 3
    fused_dirs, basic_dirs = (list(results(tmp_path, sweep)) for sweep in ("grid", "basic"))
    for a, b in zip(fused_dirs, basic_dirs, strict=True):
        assert a.name == b.name
        histories = [
            [line.split(",")[0:1] + line.split(",")[2:] for line in (d / "history.csv").read_text().splitlines()]
            for d in (a, b)
        ]
        assert histories[0] == histories[1]
        assert {p.name for p in a.iterdir()} == {p.name for p in b.iterdir()}
        for name in ("config.yaml", "overrides.yaml"):
            texts = [
                (d / ".hydra" / name)
                .read_text()
                .replace("sweep=basic", "sweep=grid")
                .replace("sweep: basic", "sweep: grid")
                .replace("- hydra/launcher=basic\n", "")
                for d in (a, b)
            ]
            assert texts[0] == texts[1]


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_invalid_jobs_are_all_named_and_none_starts(command, tmp_path, launcher):
    ended = command("-m", "depth=0,1,2", "lr=1e-3,-1", *QUICK[2:], "sweep=bad", f"hydra/launcher={launcher}")
    reason = refused(ended)
    assert "4 of 6 jobs are refused" in reason
    assert "depth=0: must be a whole number >= 1 and <= 100000 (2 of 6 jobs, the first depth=0 lr=0.001)" in reason
    assert "lr=-1.0: must be a finite number > 0 and <= 1e38 (2 of 6 jobs, the first depth=1 lr=-1)" in reason
    assert len(reason.splitlines()) == 3
    assert not list(tmp_path.rglob("result.json"))
    assert not list(tmp_path.rglob("overrides.yaml"))


def test_an_invalid_job_among_others_is_named_once(command):
    line = refused(command("-m", "curve=1,9", *QUICK))
    assert line.startswith("error: curve=9: must be one of 1, 2, 3,")


def test_a_single_invalid_job_is_one_line(command, tmp_path):
    reason = refused(command("-m", "fractal=vicsek,viscek", *QUICK))
    assert "\n" not in reason
    assert "fractal=viscek" in reason
    assert "did you mean vicsek?" in reason
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_two_jobs_in_one_directory_are_refused(command, tmp_path, launcher):
    reason = refused(command("-m", "curve=1,4", *QUICK, "hydra.sweep.subdir=same", f"hydra/launcher={launcher}"))
    assert "same" in reason
    assert not list(tmp_path.rglob("result.json"))


@pytest.fixture
def failing(monkeypatch):
    """Runs of curve 4 can't be set up."""
    init = Run.__init__

    def picky(self, config, *rest):
        if config.curve.name == "4":
            raise MemoryError("no room for curve 4")
        init(self, config, *rest)

    monkeypatch.setattr(Run, "__init__", picky)
    return monkeypatch


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_a_failing_job_is_named_and_the_others_finish(command, tmp_path, failing, launcher):
    arguments = [*GRID, f"hydra/launcher={launcher}"]
    ended = command(*arguments)
    assert refused(ended) == "error: 1 job failed"
    assert (ended.out + ended.err).count("MemoryError: no room for curve 4") == 1
    assert "Error executing job" not in ended.err
    assert "curve=4" in ended.out
    found = by("curve", tmp_path)
    assert {curve: record["status"] for curve, record in found.items()} == {
        "1": "finished",
        "4": "failed",
        "6": "finished",
    }
    rows = {row["curve"]: row for row in table(tmp_path)}
    assert (rows["4"]["status"], rows["4"]["best_test_acc"]) == ("failed", "")
    assert rows["4"]["error"] == "MemoryError: no room for curve 4"
    assert " failed" in ended.out
    assert "Traceback" in (next(d for d, r in results(tmp_path).items() if r["curve"] == "4") / "train.log").read_text()
    failing.undo()
    failing.chdir(tmp_path)
    assert command(*arguments).status == 0  # only what failed is trained
    assert by("curve", tmp_path)["4"]["status"] == "finished"


def test_a_sweep_of_failures_only_still_has_its_table(command, tmp_path, failing):
    ended = command("-m", "curve=4", "seed=0,1", *QUICK, "sweep=grid")
    assert refused(ended) == "error: 2 jobs failed"
    assert [row["status"] for row in table(tmp_path)] == ["failed", "failed"]


def test_a_diverged_run_is_marked_not_failed(command, tmp_path):
    ended = command("-m", "lr=1e-3,1e30", *QUICK, "sweep=grid")
    assert ended.status == 0
    assert {record["status"] for record in results(tmp_path).values()} == {"finished", "diverged"}
    assert "diverged" in ended.out
    found = pd.read_csv(tmp_path / "multirun" / "grid" / "results.csv").set_index("status")
    numbers = found[["best_test_acc", "best_step", "final_test_acc", "last10_test_acc"]]
    assert numbers.loc["diverged"].isna().all()  # 0.0 would be in the user's own means
    assert numbers.loc["finished"].notna().all()
    read, _ = read_runs([tmp_path / "multirun" / "grid"])
    of_diverged = read.set_index("status").loc["diverged"]
    assert LAST10.of({**of_diverged, "last10_test_acc": None, "status": "diverged"}) is None
    assert read.set_index("status").best_test_acc.isna().to_dict() == {"finished": False, "diverged": True}


def test_a_single_run_that_diverges_is_an_error(command, tmp_path):
    for _ in range(2):  # trained, and found
        ended = command("lr=1e30", *QUICK)
        assert re.fullmatch("error: .*: the run diverged; try a smaller lr", str(ended.status))
        assert "best test accuracy" not in ended.out


def test_every_swept_key_is_in_the_table(command, tmp_path):
    """Jobs that differ in a key of a group only: each has its own cell."""
    ended = command(
        "-m",
        "curve=polynomial",
        "curve.degree=1,2",
        "data.margin=0,1e-3",
        "model.sum_last=false,true",
        *QUICK,
        "sweep=grid",
    )
    assert ended.status == 0
    found = results(tmp_path)
    assert len(found) == 8
    body = [line for line in ended.out.splitlines() if "│" in line and "train " not in line]
    cells = [
        word for line in body for word in line.replace("│", " ").split() if word.count(".") == 1 and len(word) == 6
    ]
    assert sorted(cells) == sorted(f"{record['best_test_acc']:.4f}" for record in found.values())
    for key in ("margin", "sum_last"):
        assert key in ended.out


def test_keys_of_optimizers_and_schedules_are_in_the_table_where_they_differ(command, tmp_path):
    words = ["optimizer=sgd", "optimizer.momentum=0,0.9", "optimizer.clip=null,1", "schedule=constant,cosine"]
    assert command("-m", *words, *QUICK, "sweep=grid").status == 0
    rows = table(tmp_path)
    found = {(row["optimizer.momentum"], row["optimizer.clip"], row["schedule"]) for row in rows}
    assert len(rows) == len(found) == 8
    assert {momentum for momentum, _, _ in found} == {"0.0", "0.9"}
    assert {clip for _, clip, _ in found} == {"", "1.0"}
    assert not {"schedule.final", "optimizer.nesterov", "loss.name"} & set(rows[0])


def test_a_sweep_whose_objective_is_validation_shows_what_that_chose(command):
    keys = ["measures=[val_acc]", "data.val_size=150", "lr=1e-3,1e-2,1e20"]  # the last diverges
    assert "best test accuracy" in command(*GRID, *keys, "sweep=by-test").out
    out = command(*GRID, *keys, "objective=val_acc", "sweep=by-validation").out
    assert "test accuracy, chosen by validation" in out
    assert "best test accuracy" not in out


def test_two_commands_of_one_process_show_their_own_sweeps(command):
    first, second = (command("-m", *QUICK, "curve=1,4", f"sweep={name}").out for name in ("first", "second"))
    assert ("multirun/first" in first, "multirun/second" in first) == (True, False)
    assert ("multirun/first" in second, "multirun/second" in second) == (False, True)


def test_jobs_without_a_measurement_are_told_by_table_and_report(command, tmp_path, capsys):
    """As a sweep leaves them that was killed before their turn."""
    assert "no measurement yet" not in command("-m", *QUICK, "curve=1,4", "seed=0,1", "sweep=some").out
    for directory in (tmp_path / "multirun" / "some").glob("curve=4*"):
        for file in directory.iterdir():
            if file.is_file():
                file.unlink()
        if directory.name.endswith("seed=1"):  # a head alone
            (directory / "history.csv").write_text("step,seconds,train_loss,test_loss,test_acc\n")
    show_table(tmp_path / "multirun" / "some")
    assert "2 jobs: no measurement yet, so in no table." in capsys.readouterr().out
    multirun = tmp_path / "multirun"

    def told(*paths: Path) -> list[str]:
        return [note for note in read_runs(paths)[1] if " of " in note and "no measurement yet" in note]

    assert told(multirun) == [f"2 jobs of {multirun}: no measurement yet, so in no table"]
    assert len(told(multirun, multirun / "some", multirun)) == 1  # jobs that are below several paths count once
    assert "no measurement yet" not in command("-m", *QUICK, "curve=4", "seed=0", "sweep=other").out
    assert told(multirun / "some", multirun / "other")[0].startswith("1 job of ")  # another directory has measured it


def test_runs_that_were_killed_are_in_the_table_as_in_a_report(command, tmp_path, capsys):
    sweep = tmp_path / "multirun" / "some"
    command("-m", *QUICK, "curve=1,4,6", "seed=0", "measures=[train_acc]", "sweep=some")
    killed, went_on, begun = (next(sweep.glob(f"curve={curve},*")) for curve in (1, 4, 6))
    whole = read_stored(went_on).record
    (killed / "result.json").unlink()  # killed before it had a record
    before = {"best_test_acc": 0.1, "best_step": 30, "final_test_acc": 0.1, "steps": 30, "seconds": 1.0}
    write_record(went_on, RunRecord.of(whole.config, Status.INTERRUPTED, **before))  # interrupted, then killed
    (begun / "result.json").unlink()
    lines = (begun / "history.csv").read_text().splitlines()
    (begun / "history.csv").write_text("\n".join([lines[0], "0" + lines[1][2:]]) + "\n")  # measured before its steps
    show_table(sweep)
    assert "1 job: no measurement yet, so in no table." in capsys.readouterr().out
    report, notes = read_runs([sweep])
    assert notes == [f"1 job of {sweep}: no measurement yet, so in no table"]
    rows = {row["curve"]: row for row in table(tmp_path, "some")}
    assert {curve: row["status"] for curve, row in rows.items()} == {"1": "interrupted", "4": "interrupted"}
    for run in report.to_dict("records"):
        row = rows[run["curve"]]
        assert (sweep / row["directory"], int(row["steps"])) == (Path(run["directory"]), 60)
        for name in ("best_test_acc", "final_test_acc", "final_train_acc"):
            assert float(row[name]) == run[name]
        assert row["history"] == run["history"]
    assert float(rows["4"]["best_test_acc"]) == whole.best_test_acc
    command("-m", *QUICK, "curve=1,4,6", "seed=0", "measures=[train_acc]", "sweep=some")  # goes on
    assert [row["status"] for row in table(tmp_path, "some")] == ["finished"] * 3


def test_a_run_that_was_killed_gives_way_to_its_row_in_a_kept_table(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("-m", *QUICK, "curve=1", "seed=0,1", "sweep=some")
    command(*words, "kept=kept.csv")
    for path in (tmp_path / "multirun" / "some").glob("curve*"):
        (path / "result.json").unlink()
        (path / "begun.json").unlink(missing_ok=True)
    command(*words, "kept=kept.csv")
    rows = table(tmp_path, "some")
    assert [(row["status"], row["directory"]) for row in rows] == [("finished", "")] * 2
    begin_command()  # as another process, which knows of the kept runs by the sweep's table alone
    show_table(tmp_path / "multirun" / "some")
    assert table(tmp_path, "some") == rows


def test_one_job_tells_its_result(command, tmp_path):
    ended = command("fractal=vicsek", *QUICK)
    assert ended.status == 0
    [path] = tmp_path.rglob("result.json")
    record = json.loads(path.read_text())
    assert f"best test accuracy {record['best_test_acc']:.4f} at step {record['best_step']}" in ended.out
    assert str(path.parent) in ended.out
    assert path.parent.parent == tmp_path / "outputs"
    assert command("fractal=vicsek", *QUICK).out.splitlines()[-2:] == ended.out.splitlines()[-2:]


def test_a_fractal_from_a_directory_of_ones_own(command, tmp_path):
    (tmp_path / "mine" / "fractal").mkdir(parents=True)
    (tmp_path / "mine" / "fractal" / "corner.yaml").write_text(
        "name: corner\ndepth: 2\nratio: 1/3\ncorners: 2/3\nd: 3\n"
    )
    assert command("--config-dir", str(tmp_path / "mine"), "fractal=corner", *QUICK).status == 0
    [path] = tmp_path.rglob("result.json")
    record = json.loads(path.read_text())
    assert (record["fractal"], record["params"]) == ("corner", 3 * 8 + 8 + 64 + 8 + 9)


def test_results_are_returned_for_sweepers(command, monkeypatch):
    """An optimiser of hyper-parameters calls the launcher and reads what each job returns: the best test accuracy."""
    from hydra_plugins.fractal_ifs_launcher import FusedLauncher

    launch, returned = FusedLauncher.launch, []

    def seen(self, *arguments, **keywords):
        returns = launch(self, *arguments, **keywords)
        returned.extend(ret.return_value for ret in returns)
        return returns

    monkeypatch.setattr(FusedLauncher, "launch", seen)
    assert command(*GRID).status == 0
    assert len(returned) == 3
    assert all(isinstance(value, float) and 0 < value <= 1 and not math.isnan(value) for value in returned)
    assert Path("multirun/grid/results.csv").exists()


def test_runs_that_differ_in_their_optimizer_or_schedule_are_told_apart(command, capsys):
    """The table has a cell for each, and its file a column for what they differ in."""
    words = ["optimizer=sgd", "optimizer.momentum=0,0.9", "schedule=constant,cosine", "sweep=momenta"]
    assert command("-m", *QUICK, *words).status == 0
    with open("multirun/momenta/results.csv", newline="") as file:
        found = {(float(row["optimizer.momentum"]), row["schedule"]) for row in csv.DictReader(file)}
    assert found == {(momentum, schedule) for momentum in (0, 0.9) for schedule in ("constant", "cosine")}
    capsys.readouterr()
    show_table(Path("multirun/momenta"))
    shown = capsys.readouterr().out.split("└")[0]
    assert len(re.findall(r"[01]\.\d{4}", re.sub(r"(train|test) [01]\.\d{4}", "", shown))) == 4


def test_a_sweep_that_was_refused_lacks_no_table(tmp_path, caplog):
    """Nor has it a directory."""
    assert show_table(tmp_path / "refused") is None
    assert not caplog.records
    assert not list(tmp_path.iterdir())


def test_a_table_that_is_too_wide_for_the_terminal_has_a_line_for_each_run(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert command("-m", *QUICK, "curve=1,2", "width=range(2,12)", "sweep=wide").status == 0
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show_table(Path("multirun/wide"))
    lines = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80
    with open("multirun/wide/results.csv", newline="") as file:
        accuracies = [row["best_test_acc"] for row in csv.DictReader(file)]
    assert len(accuracies) == 20
    assert sum(f"{float(accuracy):.4f}" in " ".join(lines) for accuracy in accuracies) == 20


def finish(root, configs, statuses=(), steps=100):
    """Write the records of runs, finished unless others are given, with the accuracies 0.1, 0.2, ..."""
    for number, config in enumerate(configs):
        how = statuses[number] if statuses else Status.FINISHED
        (directory := root / str(number)).mkdir(parents=True)
        accuracy: dict[str, Any] = dict.fromkeys(("best_test_acc", "final_test_acc"), (number + 1) / 10)
        write_record(directory, RunRecord.of(config, how, **accuracy, best_step=steps, steps=steps, seconds=1.0))


@pytest.mark.parametrize(
    ("column", "configs"),
    [
        ("optimizer.momentum", [{"optimizer": "sgd", "optimizer__momentum": m} for m in (0.0, 0.5, 0.9)]),
        ("schedule", [{"schedule": name} for name in ("constant", "cosine", "inverse")]),
        ("schedule.warmup", [{"schedule__warmup": steps} for steps in (0, 5, 10)]),
        ("trainer.threads", [{"trainer__threads": number} for number in (1, 2, 3)]),
        ("stop.patience", [{"stop__patience": number} for number in (1, 2, 3)]),
        (
            "trainer.accumulate_grad_batches",
            [
                {"engine": "lightning", **({"+trainer__accumulate_grad_batches": number} if number else {})}
                for number in (0, 3, 5)
            ],
        ),
        ("directory", [{}, {}, {}]),
        ("directory", [{"workers": number} for number in (1, 2, 3)]),
    ],
)
def test_every_run_has_a_cell_of_its_own(tmp_path, capsys, column, configs):
    finish(tmp_path, [small(**keys) for keys in configs])
    show_table(tmp_path)
    text = capsys.readouterr().out
    assert column in text
    assert [word for word in ("0.1000", "0.2000", "0.3000") if word in text] == ["0.1000", "0.2000", "0.3000"]
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row[column] for row in rows}) == 3


def test_a_run_that_ended_early_is_told_from_one_that_came_to_its_end(tmp_path, capsys):
    statuses = [Status.STOPPED, Status.PAUSED, Status.PRUNED]
    rates = (1e-3, 2e-3, 3e-3, 4e-3)
    finish(tmp_path / "early", [small(lr=lr) for lr in rates[:3]], statuses, steps=50)
    finish(tmp_path / "late", [small(lr=rates[3])])
    show_table(tmp_path)
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for said in ("0.1000 stopped at 50", "0.2000 paused at 50", "0.3000 pruned at 50"):
        assert said in text
    assert status(tmp_path) == ({"stopped": 1, "paused": 1, "pruned": 1, "finished": 1}, 250, 300, [], [])
    runs, _ = read_runs([tmp_path])
    assert sorted(runs.status) == ["finished", "paused", "pruned", "stopped"]
    cells, notes = form_cells(runs)
    [cell] = cells.values()  # of the runs that have ended, the best; never one that was paused or pruned
    assert (cell.accuracy, cell.lrs, cell.ended, cell.budget) == (0.1, 4, True, 100)
    assert notes[0].startswith("in 1 cell a sweep by halving pruned 1 of 4 runs at rungs, by the accuracy up to there")
    assert notes[1:] == ["2 runs of another budget than that of their cell are left out of it"]
    runs, _ = read_runs([tmp_path / "early"])
    [cell] = form_cells(runs.loc[runs.status != "stopped"])[0].values()
    assert (cell.accuracy, cell.ended, cell.whole, cell.budget) == (0.3, False, False, 50)

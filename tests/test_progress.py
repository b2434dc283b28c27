"""What is shown while jobs train: its numbers, when it comes, and where."""

import io
import logging
import pty
import re
import termios
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import small
from rich.console import Console

from fractal_ifs.config.environment import check_environment
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.engines.native import NativeEngine
from fractal_ifs.errors import ConfigError
from fractal_ifs.report.__main__ import main as report
from fractal_ifs.runs.begin import begin
from fractal_ifs.runs.history import Evaluation, write_history
from fractal_ifs.runs.locks import Lock, of_directory
from fractal_ifs.runs.records import Begun, RunRecord, Status, write_begun, write_record
from fractal_ifs.sweeps import progress, watch, work
from fractal_ifs.sweeps.bars import Bars
from fractal_ifs.sweeps.clock import clock
from fractal_ifs.sweeps.progress import Progress
from fractal_ifs.sweeps.status import SweepStatus
from fractal_ifs.sweeps.status import shown as shown_status
from fractal_ifs.sweeps.sweep import train_jobs
from fractal_ifs.sweeps.work import Telling
from fractal_ifs.sweeps.worker import Worker
from fractal_ifs.training.grouping import cost
from fractal_ifs.training.standing import Running, Standing
from fractal_ifs.training.train import train

MANY = 10**9  # steps of a run that doesn't end in a test


def jobs_of(*widths: int, steps: int = 1000) -> list[Job]:
    config = small(depth=5, steps=steps, eval_every=steps)
    return [Job(replace(config, width=width), None) for width in widths]


@pytest.fixture
def now(monkeypatch):
    """A clock that a test moves: ``now[0]``."""
    time_is = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time_is[0])
    return time_is


# Its numbers


def test_the_time_that_is_left_goes_by_the_cost_of_each_run(now):
    jobs = jobs_of(10, 200)
    shown = Progress(jobs, mode="off")
    costs = [cost(job.config) for job in jobs]
    now[0] += 134.0  # the wide one has taken 134 s, and the narrow one takes 1/134 of that
    shown.group_ended([1], failed=0, best=0.75)
    assert "best 0.7500" in shown.line()
    shown.past = shown.past._replace(work=costs[1], steps=1000)
    assert shown.line() == "1 of 2 jobs done; 0 running; 0 failed; 7 steps/s; 0:01 left; best 0.7500"
    assert costs[1] / costs[0] == 134.0


def test_groups_in_training_count_by_what_they_have_told_last(now):
    jobs = jobs_of(8, 8, 8, 8)
    shown, each = Progress(jobs, mode="off"), cost(jobs[0].config)
    now[0] += 10
    for at in (100, 500):
        running = (Running(1, at, 1000, None, None),)
        told = Standing(running, ended=1, failed=1, best=0.6, steps=1000 + at, work=each * 1.5, left=each / 2)
        shown.told([0, 3], told)
    assert shown.line() == "0 of 4 jobs done; 1 running; 1 failed; 150 steps/s; 0:16 left; best 0.6000"
    assert [job is jobs[3] for job, _ in shown.standing()[1]] == [True]
    shown.group_ended([0, 3], failed=1, best=0.7)
    assert shown.line() == "1 of 4 jobs done; 0 running; 1 failed; 150 steps/s; 0:13 left; best 0.7000"


def test_a_single_run_has_its_step_and_loss(now):
    shown = Progress(jobs_of(8), mode="off")
    now[0] += 1
    shown.told([0], Standing((Running(0, 250, 1000, 0.5, 0.75),), best=0.75, steps=250, work=1.0, left=3.0))
    assert shown.line() == "step 250 of 1,000; loss 0.5000; 250 steps/s; 0:03 left; best 0.7500"


def test_rounds_count_what_was_done_here_and_what_is_left(tmp_path):
    job = Job(small(steps=100, eval_every=50), tmp_path)
    train([job._replace(pause=50)], threads=1)
    seen: list[Standing] = []
    train([job, Job(small(steps=50, lr=1e30), None)], threads=1, report=lambda rounds: seen.append(rounds.standing()))
    assert seen[0].left < cost(job.config)
    last = seen[-1]
    assert (last.running, last.ended, last.failed, last.steps, last.left) == ((), 2, 1, 100, 0)
    assert last.work == pytest.approx(cost(job.config))
    assert last.best is not None
    assert 0 < last.best < 1


def test_layers_before_the_last_have_no_best_accuracy():
    """Theirs is that of a readout which the network loses."""
    seen: list[Standing] = []
    job = Job(small(training="layerwise", depth=2, steps=50, eval_every=25), None)
    train([job], threads=1, report=lambda rounds: seen.append(rounds.standing()))
    best = [(standing.steps, standing.best) for standing in seen if standing.steps]
    assert {accuracy for steps, accuracy in best if steps <= 50} == {None}
    assert all(accuracy > 0 for steps, accuracy in best if accuracy is not None and steps > 50)
    assert best[-1][1] is not None


def test_the_native_engine_says_how_far_it_is_in_the_middle_of_a_round():
    config = replace(small(width=50, depth=5), steps=MANY, eval_every=MANY)
    engine, stop, seen = NativeEngine(1), [], []
    run = begin(Job(config, None), "cpu", engine.computed_by)

    def look() -> None:
        deadline = time.monotonic() + 300
        while len(set(seen)) < 4 and time.monotonic() < deadline:
            seen.append(engine.reached(run))
            time.sleep(0.02)
        stop.append(1)

    looking = threading.Thread(target=look)
    looking.start()
    engine.advance([run], [40_000], stop)  # about 2 s, in 16 slices
    looking.join()
    assert seen == sorted(seen)
    assert len(set(seen)) == 4
    assert engine.reached(run) == run.step >= seen[-1]


def test_times_are_short():
    times = [0, 62, 3 * 3600 + 245, 86400 + 1, 3 * 86400]
    assert [clock(t) for t in times] == ["0:00", "1:02", "3:04:05", "1 day 0:00:01", "3 days 0:00:00"]


# When and where it comes


def test_lines_of_a_log_come_ever_rarer(now, caplog):
    shown = Progress(jobs_of(8, 8), mode="off")
    shown.bars, begun, came = None, now[0], []
    with caplog.at_level(logging.INFO):
        for second in range(3600):
            now[0] = begun + second
            before = len(caplog.messages)
            shown._show()
            came += [second] * (len(caplog.messages) - before)
    assert came == [10, 30, 90, 270, 810, 1410, 2010, 2610, 3210]
    assert caplog.messages[0] == "0 of 2 jobs done; 0 running; 0 failed; 0 steps/s"


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.02)
    monkeypatch.setattr(progress, "FIRST", 0.05)


@pytest.mark.parametrize("logs", [True, False])
def test_a_sweep_without_a_terminal_says_how_far_it_is(soon, monkeypatch, caplog, capsys, logs):
    """By logging where that is set up, else on standard error, as in a notebook."""
    if not logs:
        monkeypatch.setattr(progress.log, "propagate", False)
        monkeypatch.setattr(logging, "lastResort", None)
    with caplog.at_level(logging.INFO):
        train_jobs([Job(small(width=width, steps=20_000, eval_every=20_000), None) for width in (20, 30)])
    lines = [line for line in caplog.messages if " jobs done; " in line]
    told = lines if logs else capsys.readouterr().err.splitlines()
    assert told[0].startswith("0 of 2 jobs done; ")
    assert bool(lines) == logs


@pytest.fixture
def terminal(soon, monkeypatch):
    """The stream of a terminal, and the other side of it. Its size is that of $COLUMNS and $LINES."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("TERM", "xterm"), ("COLUMNS", "100"), ("LINES", "24")):
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as reader, open(theirs, "w") as stream:
        yield stream, reader


def shown_in(stream: Any, mode: str = "auto", work: float = 0.0, left: float = 0.0) -> Progress:
    """The progress of two runs in training, of other widths and numbers of steps."""
    first, second = jobs_of(10, 77)
    jobs = [first, second._replace(config=replace(second.config, steps=2000))]
    shown = Progress(jobs, stream, mode)
    running = (Running(0, 300, 1000, 0.5, 0.75), Running(1, 1500, 2000, None, None))
    shown.told([0, 1], Standing(running, best=0.75, work=work, left=left))
    return shown


def looked(shown: Progress) -> None:
    """Wait until its thread has shown what is so now."""
    show, done = shown._show, threading.Event()
    cast(Any, shown)._show = lambda: (show(), done.set())
    assert done.wait(300)


def all_of(stream: Any, reader: Any) -> str:
    """All that a terminal got."""
    stream.write("END")
    stream.flush()
    text = b""
    while not text.endswith(b"END"):
        text += reader.read(10_000)
    return text.decode().removesuffix("END")


def plain(text: str) -> list[str]:
    """The lines of what a terminal got, without colours and the like."""
    return re.sub("\x1b\\[[^a-zA-Z]*[a-zA-Z]", "", text).splitlines()


LINE = "0 of 2 jobs done"


def test_a_terminal_with_room_has_the_runs_by_what_they_differ_in(terminal):
    shown = shown_in(terminal[0], work=1.0, left=3.0)
    looked(shown)
    shown.close()
    text = all_of(*terminal)
    head, *runs, line = [line.split() for line in plain(text)[-5:-1]]
    assert head == ["width", "step", "of", "loss", "best"]  # the steps that were asked for are in "of" alone
    assert runs == [["10", "━━━╺━━━━━━", "300", "1,000", "0.5000", "0.7500"], ["77", "━━━━━━━╸━━", "1,500", "2,000"]]
    assert line[:6] == [*LINE.split(), "━" * 6 + "╸" + "━" * 20]  # by the work: a quarter is done
    assert "\x1b[?25h" in text.split(LINE)[0]  # the cursor is there, whenever the process is killed
    lines = text[text.rindex(LINE) :].count("\x1b[2K")
    assert lines == 4  # at the end all of it is removed


def test_runs_are_told_apart_by_keys_of_groups_too(terminal):
    configs = [small(fractal=name, data__margin=m) for name in ("cantor2d", "vicsek") for m in (0.0, 0.0002)]
    shown = Progress([Job(config, None) for config in configs], terminal[0], "auto")
    shown.told([0, 1, 2, 3], Standing(tuple(Running(i, 1, 100, None, None) for i in range(4))))
    looked(shown)
    shown.close()
    head, *runs, _ = [line.split() for line in plain(all_of(*terminal))[-7:-1]]
    assert head[:2] == ["fractal", "data.margin"]  # and not the maps of a fractal, which follow from its name
    assert [run[:2] for run in runs] == [
        ["cantor2d", "0.0"],
        ["cantor2d", "0.0002"],
        ["vicsek", "0.0"],
        ["vicsek", "0.0002"],
    ]


@pytest.mark.parametrize(("mode", "columns", "lines"), [("line", 100, 24), ("auto", 100, 8), ("auto", 50, 24)])
def test_otherwise_there_is_one_line(terminal, monkeypatch, mode, columns, lines):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(lines))
    shown = shown_in(terminal[0], mode)
    looked(shown)
    shown.close()
    text = all_of(*terminal)
    assert LINE in text
    assert "77" not in text


def row(columns: int, **texts: str) -> str:
    """The line of a bar at the middle, in a terminal of so many columns."""
    console = Console(file=io.StringIO(), width=columns)
    bars = Bars(console, list)
    task = bars.add_task("", total=2, completed=1, texts=texts)
    console.print(bars.row(bars.tasks[task]))
    return cast(io.StringIO, console.file).getvalue().rstrip("\n")


def test_a_line_has_of_the_texts_what_there_is_room_for_the_time_left_longest():
    texts = {"done": "4 of 8 jobs done", "running": "4 running", "failed": "1 failed"}
    texts |= {"rate": "12,533 steps/s", "left": "2:10 left", "best": "best 0.7348"}
    seen = {}
    for columns in range(10, 141):
        line = row(columns, **texts)
        assert len(line) <= columns
        assert "\n" not in line
        seen[columns] = [text for text in texts.values() if text in line], "━" in line
    everything = list(texts.values())
    assert seen[140] == seen[89] == (everything, True)
    assert seen[88] == seen[78] == ([text for text in everything if "running" not in text], True)
    assert seen[60] == (["4 of 8 jobs done", "1 failed", "2:10 left", "best 0.7348"], False)
    assert seen[30] == (["4 of 8 jobs done", "2:10 left"], False)
    assert seen[16] == (["4 of 8 jobs done"], False)
    single = row(30, done="step 250 of 1,000", loss="loss 0.5000", rate="250 steps/s", left="2:10 left")
    assert single.split("  ") == ["step 250 of 1,000", "2:10 left"]


def test_brackets_in_a_text_are_text():
    assert row(40, done="[red]x[/red]").startswith("[red]x[/red] ")


def test_more_runs_than_lines_are_counted(terminal, monkeypatch):
    monkeypatch.setenv("LINES", "12")
    shown = Progress(jobs_of(*range(1, 31)), terminal[0])
    shown.told(range(30), Standing(tuple(Running(n, n, 1000, None, None) for n in range(30))))
    looked(shown)
    shown.close()
    assert "and 23 more" in all_of(*terminal)


@pytest.mark.parametrize("mode", ["off", "log"])
def test_it_can_be_turned_off(terminal, monkeypatch, mode):
    monkeypatch.setattr(progress, "FIRST", 1000.0)
    shown = shown_in(terminal[0], mode)
    if mode == "log":
        shown.next_line = 0.0  # now that it has been told
        looked(shown)
        looked(shown)
    else:
        time.sleep(0.2)
    shown.close()
    told = {f"{LINE}; 2 running; 0 failed; 0 steps/s; best 0.7500"} if mode == "log" else set()
    assert set(all_of(*terminal).splitlines()) == told


def test_what_is_logged_stands_above_it(terminal, caplog):
    handler = logging.StreamHandler(terminal[0])
    logging.getLogger().addHandler(handler)
    try:
        shown = shown_in(terminal[0])
        looked(shown)
        logging.getLogger("fractal_ifs").warning("a line of a log")
        looked(shown)
        shown.close()
        assert handler.stream is terminal[0]
    finally:
        logging.getLogger().removeHandler(handler)
    before, _, after = all_of(*terminal).partition("a line of a log")
    assert before.endswith("\x1b[1A\x1b[2K")  # what was drawn is removed first
    assert after.startswith("\r\n")
    assert LINE in after


def test_a_terminal_that_is_held_up_holds_up_nothing(terminal):
    stream, _ = terminal
    shown = shown_in(stream)
    looked(shown)
    termios.tcflow(stream, termios.TCOOFF)  # what Ctrl-S does
    time.sleep(0.1)
    closing = threading.Thread(target=shown.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    termios.tcflow(stream, termios.TCOON)
    assert LINE in all_of(*terminal)


def test_other_values_of_the_variable_are_refused(monkeypatch):
    monkeypatch.setenv("FRACTAL_IFS_PROGRESS", "bars")
    with pytest.raises(ConfigError, match=r"^FRACTAL_IFS_PROGRESS=bars: must be one of auto, table, line, log, off$"):
        check_environment()


# Workers


class Rounds:
    """Of which only the standing is asked for."""

    def standing(self) -> Standing:
        return Standing(ended=3)


def test_a_worker_tells_what_it_logs_and_its_driver_logs_it_by_the_run(caplog, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "TELLING_SECONDS", 0.01)
    worker = Worker(None, 0)
    worker.numbers = [1, 0]
    jobs = [Job(small(), tmp_path / "0"), Job(small(), tmp_path / "1")]
    with Telling(worker.theirs) as telling:
        telling.follow(cast(Any, Rounds()))
        assert worker.connection.poll(300)
        logging.getLogger("fractal_ifs.runs").warning("read %d", 7)
        monkeypatch.setattr(logging, "raiseExceptions", False)  # else it is told to the terminal
        logging.getLogger("fractal_ifs.runs").warning("read %d", "seven")  # costs its author's run nothing
        telling.tell((["it failed", "too"], None))
    caplog.clear()
    heard = []
    while not (heard and isinstance(heard[-1], list)):
        heard.append(worker.heard(jobs))
    assert heard[0] == Standing(ended=3)
    assert [str(outcome) for outcome in heard[-1]] == ["it failed", "too"]
    assert caplog.record_tuples == [("fractal_ifs.runs", logging.WARNING, "1 and 1 more: read 7")]


@pytest.mark.slow
def test_a_sweep_in_workers_is_followed(monkeypatch, tmp_path):
    seen: list[Standing] = []
    told = Progress.told
    monkeypatch.setattr(Progress, "told", lambda self, numbers, group: (seen.append(group), told(self, numbers, group)))
    jobs = [Job(small(engine="torch", workers=2, steps=15000, lr=lr), tmp_path / str(lr)) for lr in (1e-3, 1e-2)]
    train_jobs(jobs, "local")
    assert all(isinstance(each, Standing) for each in seen)
    assert any(0 < run.step < 15000 for each in seen for run in each.running)


# status --watch


def a_run(directory: Path, status: Status, steps: int) -> None:
    config = small(steps=1000, eval_every=100)
    directory.mkdir(parents=True, exist_ok=True)
    numbers = {"best_test_acc": 0.5, "best_step": 100, "final_test_acc": 0.5}
    write_record(directory, RunRecord.of(config, status, steps=steps, **numbers))


def watched_by(monkeypatch, sleep, monotonic=time.monotonic):
    """The time as ``watch`` has it: other threads of this process keep theirs."""
    own = SimpleNamespace(sleep=sleep, monotonic=monotonic, strftime=time.strftime)
    monkeypatch.setattr(watch, "time", own)


def test_watching_ends_with_the_runs(tmp_path, monkeypatch, capsys):
    a_run(tmp_path / "0", Status.FINISHED, 1000)
    a_run(tmp_path / "1", Status.INTERRUPTED, 200)
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:  # of what was done before the first look nobody knows since when
            a_run(tmp_path / "1", Status.INTERRUPTED, 400)
        if len(naps) == 3:
            a_run(tmp_path / "1", Status.INTERRUPTED, 600)
        if len(naps) == 40:  # after a long silence nobody knows whether it goes on
            a_run(tmp_path / "1", Status.FINISHED, 1000)

    watched_by(monkeypatch, sleep, lambda: 20.0 * len(naps))
    report(["status", str(tmp_path), "--watch", "20"])
    lines = [line[9:] for line in capsys.readouterr().out.splitlines()]  # without the time
    head = f"{tmp_path}: 2 runs:"
    assert naps == [20] * 40
    assert lines == [
        f"{head} 1 finished, 1 interrupted; 1,200 of 2,000 steps (60.0%)",
        f"{head} 1 finished, 1 interrupted; 1,400 of 2,000 steps (70.0%)",
        f"{head} 1 finished, 1 interrupted; 1,600 of 2,000 steps (80.0%); 10 steps/s; 0:40 left",
        f"{head} 1 finished, 1 interrupted; 1,600 of 2,000 steps (80.0%)",
        f"{head} 2 finished; 2,000 of 2,000 steps (100.0%)",
    ]


def test_watching_in_a_terminal_draws_a_bar_for_each_directory(tmp_path, monkeypatch, terminal):
    a_run(tmp_path / "a" / "0", Status.INTERRUPTED, 200)
    a_run(tmp_path / "b" / "0", Status.FINISHED, 1000)
    monkeypatch.setattr(watch, "Console", partial(Console, file=terminal[0]))
    watched_by(monkeypatch, lambda seconds: a_run(tmp_path / "a" / "0", Status.FINISHED, 1000))
    monkeypatch.chdir(tmp_path)
    last = watch.watch([Path("a"), Path("b")], 1)
    assert last == "\n".join(f"{name}: 1 run: 1 finished; 1,000 of 1,000 steps (100.0%)" for name in "ab")
    first, _, then = all_of(*terminal).partition("a: 1 run: 1 finished")
    assert [line.split() for line in plain(first)[-4:]] == [
        ["a:", "1", "run:", "1", "interrupted;", "200", "of", "1,000", "steps", "(20.0%)"],
        ["20.0%", "━" * 18 + "╸" + "━" * 75],
        ["b:", "1", "run:", "1", "finished;", "1,000", "of", "1,000", "steps", "(100.0%)"],
        ["100.0%", "━" * 93],
    ]
    assert "100.0%" in then


def in_training(directory: Path, config: RunConfig, *accuracies: float) -> Lock:
    """A run in training, with a measurement every 100 steps from step 0 on."""
    directory.mkdir(parents=True)
    write_begun(directory, Begun(config, None))
    write_history(directory, [Evaluation(100 * n, 1.0, 0.5, 0.5, value) for n, value in enumerate(accuracies)])
    return of_directory(directory, "run")


@pytest.mark.parametrize("lines", [24, 8])
def test_watching_has_a_line_for_each_run_in_training_that_has_room(tmp_path, monkeypatch, terminal, lines):
    config, layers = small(steps=500), small(steps=200, training="layerwise", depth=2)
    locks = [
        in_training(tmp_path / "s" / "0", config),
        in_training(tmp_path / "s" / "1", config, 0.99),
        in_training(tmp_path / "s" / "2", config, 0.99, 0.6, 0.55),
        in_training(tmp_path / "s" / "3", layers, 0.99, 0.98, 0.97),
        in_training(tmp_path / "s" / "4", layers, 0.99, 0.98, 0.97, 0.7),
    ]
    monkeypatch.setattr(watch, "Console", partial(Console, file=terminal[0]))
    watched_by(monkeypatch, lambda seconds: 1 / 0)
    for name, value in (("LINES", lines), ("COLUMNS", 45)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZeroDivisionError):
        watch.watch([Path("s")], 1)
    text = plain(all_of(*terminal))
    for lock in locks:
        lock.release()
    head = max(n for n, line in enumerate(text) if line.startswith("s: "))
    runs = [
        "  0: no measurement yet",
        "  1: step 0, loss 0.5000",  # before the first step there is no result,
        "  2: step 200, loss 0.5000, best 0.6000",
        "  3: step 200, loss 0.5000",  # and in layers before the last neither
        "  4: step 300, loss 0.5000, best 0.7000",
    ]
    assert text[head].rstrip() == "s: 5 runs: 5 running; 700 of 2,300 steps"
    assert [line.rstrip() for line in text[head + 2 :] if line.strip()] == runs[: lines - 4]


def test_a_status_loses_what_matters_least_where_there_is_no_room():
    found = SweepStatus({"finished": 3, "interrupted": 5}, 757_182, 800_000, [], [])
    whole = "multirun/watched: 8 runs: 3 finished, 5 interrupted; 757,182 of 800,000 steps (94.6%)"
    seen = [shown_status(Path("multirun/watched"), found, columns) for columns in (90, 80, 60, 44, 40)]
    assert seen == [
        whole,
        whole.removesuffix(" (94.6%)"),
        "multirun/watched: 8 runs: 3 finished, 5 interrupted",
        "multirun/watched: 3 finished, 5 interrupted",
        "watched: 3 finished, 5 interrupted",
    ]


@pytest.mark.parametrize("seconds", ["0", "x", "1.5"])
def test_bad_seconds_are_refused(tmp_path, seconds, capsys):
    with pytest.raises(SystemExit) as ended:
        report(["status", str(tmp_path), "--watch", seconds])
    assert ended.value.code == 2
    assert f"--watch={seconds}: must be a whole number >= 1 and <= 1e6" in capsys.readouterr().err


def test_nothing_to_watch_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="there is no run in this directory"):
        report(["status", str(tmp_path), "--watch"])

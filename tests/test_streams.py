"""Commands whose output can't be written, and signals: real processes, with pipes and terminals that close on them."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import read_checkpoint
from killed import SMALL, on_a_terminal, start, steps, wait_for

# What a shell makes of the streams.
CLOSED, FULL = 'exec "$@" >&- 2>&-', 'exec "$@" >/dev/full 2>/dev/full'
HEAD = '{ "$@"; echo $? >status; } 2>&1 | head -n 1'
SHORT = ["-m", "curve=1,4", *SMALL, "width=8", "steps=400", "sweep=s"]
LONG = ["-m", "curve=1,4", *SMALL, "width=20", "steps=100000000", "sweep=s"]


def run(*words: str, through: str = 'exec "$@"', **options) -> subprocess.CompletedProcess:
    """``python WORDS``, started by a line of shell."""
    command = ["sh", "-c", through, "sh", sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def program(text: str) -> list[str]:
    return ["-c", f"import sys, signal, os\nfrom fractal_ifs import streams\n{text}"]


@contextlib.contextmanager
def a_closed_pipe():
    """The end to write to; nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


def trained(directory: Path) -> list[str]:
    """How the runs of a sweep ended, by its results.csv."""
    with open(directory / "multirun/s/results.csv", newline="") as file:
        return [row["status"] for row in csv.DictReader(file)]


# The streams of any command

LOUD = "streams.command(lambda: print('x' * 100_000))"


def test_nobody_reads():
    with a_closed_pipe() as pipe:
        done = subprocess.run([sys.executable, *program(LOUD)], stdout=pipe, stderr=subprocess.PIPE, timeout=300)
        assert (done.returncode, done.stderr) == (0, b"")
        done = subprocess.run([sys.executable, *program(LOUD)], stdout=pipe, stderr=pipe, timeout=300)
        assert done.returncode == 0


@pytest.mark.parametrize(("result", "status"), [("None", 1), ("0", 0), ("3", 3)])
def test_a_full_disk_is_told_and_is_a_failure_where_the_output_was_asked_for(result, status):
    text = f"def main():\n    print('a line')\n    return {result}\nstreams.command(main)"
    done = run(*program(text), through='exec "$@" >/dev/full')
    assert (done.returncode, done.stderr) == (
        status,
        "standard output could not be written: No space left on device\n",
    )


@pytest.mark.parametrize(
    ("ending", "status", "told"),
    [
        ("sys.exit('error: bad')", 1, "error: bad\n"),
        ("sys.exit(2)", 2, ""),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("print('said', file=sys.stderr)", 0, "said\n"),
    ],
)
def test_the_status_is_honest_whatever_becomes_of_standard_error(ending, status, told):
    text = program(f"def main():\n    {ending}\nstreams.command(main)")
    done = run(*text)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", told)
    for through in (CLOSED, FULL, 'exec "$@" 2>&-', 'exec "$@" 2>/dev/full'):
        assert run(*text, through=through).returncode == status


def test_files_do_not_take_the_numbers_of_closed_streams(tmp_path):
    text = "streams.outlast()\nfile = open(sys.argv[1], 'w')\nprint('said')\nos.system('echo said; echo said >&2')"
    done = run(*program(text), str(tmp_path / "file"), through='exec "$@" <&- >&- 2>&-')
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == ""


def test_what_the_locale_cannot_write_is_written_otherwise():
    for told in ({"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}):
        text = r"print('\u22120.012\u2020 gr\xf6\xdfe', '\udcff') or print('\xb1', file=sys.stderr)"
        done = run(*program(f"streams.command(lambda: {text})"), env={**os.environ, **told})
        assert (done.returncode, done.stderr) == (0, "+-\n")
        assert done.stdout == "-0.012# gr\\xf6\\xdfe \\udcff\n"


def test_a_pipe_that_another_process_made_non_blocking_gets_every_line():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    text = "streams.command(lambda: [print('x' * 99) for _ in range(10_000)] and None)"
    process = subprocess.Popen([sys.executable, *program(text)], stdout=writer)
    os.close(writer)
    with open(reader) as file:
        assert len(file.readlines()) == 10_000
    assert process.wait(300) == 0


def test_logging_into_a_closed_pipe_is_quiet():
    text = "import logging\nstreams.outlast()\nlogging.basicConfig(stream=sys.stdout)\n"
    text += "logging.error('x')\nlogging.error('%d', 'x')\nstreams.command(lambda: None)"
    with a_closed_pipe() as pipe:
        done = subprocess.run([sys.executable, *program(text)], stdout=pipe, stderr=subprocess.PIPE, timeout=300)
    assert (done.returncode, done.stderr) == (0, b"")


# The doors


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """A directory with a finished sweep."""
    directory = tmp_path_factory.mktemp("sweep")
    done = run("-m", "fractal_ifs.train", *SHORT, cwd=directory)
    assert done.returncode == 0, done.stderr
    return directory


DOORS = {
    "plot": ["plot", "fractal=vicsek", "curve=1", "points=100"],
    "report": ["report", "multirun/s", "--no-figures"],
    "status": ["report", "status", "multirun/s"],
    "theory": ["theory", "theorem1", "figures=false", "fractal.depth=1"],
    "doctor": ["doctor"],
    "help": ["train", "--help"],
    "verb": ["__main__", "status", "multirun/s"],
    "completion": ["completion", "bash"],
}


@pytest.mark.parametrize(
    "door", [pytest.param(door, marks=[pytest.mark.slow] * (door in ("plot", "theory"))) for door in DOORS]
)
def test_a_door_whose_reader_has_gone_says_nothing(sweep, door):
    name, *words = DOORS[door]
    with a_closed_pipe() as pipe:
        command = [sys.executable, "-m", f"fractal_ifs.{name}", *words]
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=300, cwd=sweep)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_status_that_cannot_be_written_is_a_failure(sweep):
    name, *words = DOORS["status"]
    assert run("-m", f"fractal_ifs.{name}", *words, through='exec "$@" >/dev/full', cwd=sweep).returncode == 1


# A signal at the first line that a verb prints: in the middle of its work, or at its end.
AT_PRINT = """
import builtins, os, sys
from fractal_ifs.__main__ import script
def kill(*_, **__):
    builtins.print = said
    os.kill(os.getpid(), {kind})
said, builtins.print = print, kill
script()
"""


@pytest.mark.parametrize("verb", ["train", pytest.param("theory", marks=pytest.mark.slow), "status"])
def test_a_signal_ends_every_verb_with_its_status(sweep, tmp_path, verb):
    words = {"train": ["train", *SHORT], "status": ["status", "multirun/s"]}.get(verb) or DOORS[verb]
    folder = tmp_path if verb == "train" else sweep
    for kind in (signal.SIGINT, signal.SIGTERM):
        done = run("-c", AT_PRINT.format(kind=int(kind)), *words, through='"$@"; exit $?', cwd=folder)
        assert done.returncode == 128 + kind, done.stderr
        assert "Traceback" not in done.stderr
        assert ("interrupted" in done.stderr) == (kind == signal.SIGINT or verb == "train")


AT_IMPORT = """
import os, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == {name!r}:
            os.kill(os.getpid(), 2)
sys.meta_path.insert(0, Interrupting())
"""


@pytest.mark.parametrize(
    ("door", "name"), [("train", "hydra"), ("train", "fractal_ifs.config.run"), ("theory", "hydra")]
)
def test_ctrl_c_among_the_first_imports_ends_at_once(tmp_path, door, name):
    (tmp_path / "sitecustomize.py").write_text(AT_IMPORT.format(name=name))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run("-m", f"fractal_ifs.{door}", cwd=tmp_path, env={**os.environ, "PYTHONPATH": path})
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
    assert len(list(tmp_path.iterdir())) <= 2  # that file, and its __pycache__


@pytest.mark.parametrize("door", ["report", "status", "train", "theory"])
def test_a_door_in_a_locale_of_ascii(sweep, door):
    name, *words = DOORS.get(door, ["train", *SHORT])
    done = run("-m", f"fractal_ifs.{name}", *words, cwd=sweep, env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert len(done.stdout) > 50
    assert "\\u" not in done.stdout


# Training


@pytest.mark.parametrize("engine", ["auto", pytest.param("torch", marks=pytest.mark.slow)])  # torch: in two workers
@pytest.mark.parametrize("through", [HEAD, CLOSED, FULL], ids=["head", "closed", "full"])
def test_a_sweep_outlives_its_streams(tmp_path, through, engine):
    words = [*SHORT, f"engine={engine}", "workers=2"]
    done = run("-m", "fractal_ifs.train", *words, through=through, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == (through == HEAD)
    assert trained(tmp_path) == ["finished", "finished"]
    if through == HEAD:
        assert (tmp_path / "status").read_text() == "0\n"


def test_a_run_that_cannot_tell_its_result_has_one(tmp_path):
    words = ["curve=4", *SHORT[2:-1], "hydra.run.dir=one"]
    done = run("-m", "fractal_ifs.train", *words, through='exec "$@" >/dev/full', cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "standard output could not be written: No space left on device\n")
    assert json.loads((tmp_path / "one/result.json").read_text())["status"] == "finished"


def close_in_training(directory: Path, process: subprocess.Popen, terminal: int) -> None:
    """Close the terminal once the runs train, as a logout does."""
    os.set_blocking(terminal, False)

    def training() -> bool:
        with contextlib.suppress(BlockingIOError):
            os.read(terminal, 1 << 16)  # or the command would wait
        return len(steps(directory)) == 2

    assert wait_for(training, process)
    os.close(terminal)


def test_a_terminal_that_closes_ends_training_in_good_order(tmp_path):
    process, terminal = on_a_terminal(tmp_path, *LONG)
    close_in_training(tmp_path, process, terminal)
    assert process.wait(300) == 128 + signal.SIGHUP
    assert trained(tmp_path) == ["interrupted", "interrupted"]


@pytest.mark.parametrize("engine", ["auto", pytest.param("torch", marks=pytest.mark.slow)])
def test_training_that_ignores_the_hang_up_goes_on_without_its_terminal(tmp_path, engine):
    words = ["-m", "curve=1,4", *SMALL, "width=20", "steps=6000", "sweep=s", f"engine={engine}", "workers=2"]
    process, terminal = on_a_terminal(tmp_path, *words, ignore=(signal.SIGHUP,))
    close_in_training(tmp_path, process, terminal)
    assert process.wait(300) == 0
    assert trained(tmp_path) == ["finished", "finished"]


@pytest.mark.parametrize("kind", [signal.SIGUSR1, signal.SIGUSR2])
def test_signals_checkpoint_and_end(tmp_path, kind):
    again = ["overwrite=true"] if kind == signal.SIGUSR2 else []  # with it the same command would begin anew
    process = start(tmp_path, *LONG, *again)
    assert wait_for(lambda: len(steps(tmp_path)) == 2, process)
    process.send_signal(kind)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + kind
    told = " without overwrite=true goes on from here, and leaves finished runs as they are" if again else None
    assert text.endswith(f"interrupted: the same command{told or ' goes on from here'}\n")
    assert "Traceback" not in text
    assert trained(tmp_path) == ["interrupted", "interrupted"]
    for path in tmp_path.rglob("history.csv"):
        state = read_checkpoint(path.parent)
        assert state is not None
        assert state["step"] > 0


# Ctrl-C at the end of a sweep, and once more: ``kill`` at a place in the code.
AT = """
import os, signal, sys
from fractal_ifs import streams, train
from fractal_ifs.sweeps import table
def kill(*_, **__):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        for _ in range({times} - 1):
            os.kill(os.getpid(), signal.SIGINT)
{place} = kill
sys.argv = ["train", *{words}]
streams.command(train.main)
"""


@pytest.mark.parametrize(("place", "times"), [("table.write", 1), ("table.Console.print", 2)])
def test_ctrl_c_while_the_table_is_written_or_shown(tmp_path, place, times):
    done = run("-c", AT.format(place=place, times=times, words=SHORT), cwd=tmp_path)
    assert done.returncode == 130
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr == ("interrupted: the same command goes on from here\n" if times == 1 else "")
    assert len(list(tmp_path.rglob("result.json"))) == 2


@pytest.mark.slow
def test_without_dev_shm_workers_train_all_the_same(tmp_path):
    mount = "mount -t tmpfs -o ro none /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("can't mount a file system here")
    command = [sys.executable, "-m", "fractal_ifs.train", *SHORT, "engine=torch", "workers=2"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount + ' && exec "$@"', "sh", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert trained(tmp_path) == ["finished", "finished"]

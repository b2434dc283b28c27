"""A dozen strikes of ``make torture``, always the same ones; and that a strike hits what it is said to hit."""

import errno
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults import DRIVER, Faults, Kind, build
from struck import Command, finished
from torture import Torture

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("cc"), reason="needs Linux, cc"
)

# Its operations: mkdir, open, write, write, fsync, rename, open, write. It prints the errors.
WRITER = """
import os
def attempt(operate, *arguments):
    try:
        return operate(*arguments)
    except OSError as error:
        print(error.errno)
attempt(os.mkdir, "d")
with open("d/new", "wb", buffering=0) as file:
    attempt(file.write, b"0123456789")
    attempt(file.write, b"0123456789")
    attempt(os.fsync, file.fileno())
attempt(os.replace, "d/new", "d/one")
with open("d/two", "wb", buffering=0) as file:
    attempt(file.write, b"0123456789")
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("faults"))


def write(directory: Path, faults: Faults) -> tuple[int, str, dict[str, int]]:
    """Run WRITER: its exit status, what it prints, the sizes of the files that it leaves."""
    (directory / "below").mkdir()
    as_driver = [sys.executable, "-c", WRITER, "-m fractal_ifs.train"]
    done = subprocess.run(
        as_driver, cwd=directory / "below", env=faults.environment, capture_output=True, text=True, check=False
    )
    sizes = {path.name: path.stat().st_size for path in (directory / "below").rglob("*") if path.is_file()}
    return done.returncode, done.stdout + done.stderr, sizes


@pytest.mark.parametrize(
    ("at", "kind", "status", "said", "sizes"),
    [
        (1, Kind.NOTHING, 0, "", {"one": 20, "two": 10}),
        (1, Kind.KILL_BEFORE, -9, "", {}),
        (2, Kind.KILL_AFTER, -9, "", {"new": 0}),
        (3, Kind.KILL_BEFORE, -9, "", {"new": 0}),
        (3, Kind.TEAR, -9, "", {"new": 5}),
        (4, Kind.TEAR, -9, "", {"new": 15}),
        (4, Kind.KILL_AFTER, -9, "", {"new": 20}),
        (4, Kind.FAULT, 0, f"{errno.EIO}\n", {"one": 10, "two": 10}),
        (5, Kind.FAULT, 0, f"{errno.EIO}\n", {"one": 20, "two": 10}),
        (6, Kind.KILL_BEFORE, -9, "", {"new": 20}),
        (6, Kind.KILL_AFTER, -9, "", {"one": 20}),
        (8, Kind.FULL, 0, "", {"one": 20, "two": 5}),
        (9, Kind.KILL_BEFORE, 0, "", {"one": 20, "two": 10}),
    ],
)
def test_a_strike_is_at_its_operation(tmp_path, library, at, kind, status, said, sizes):
    faults = Faults(library, tmp_path / "shared", tmp_path / "below")
    faults.strike(DRIVER, at, kind)
    assert write(tmp_path, faults) == (status, said, sizes)
    assert bool(faults.struck) == (kind != Kind.NOTHING and at < 9)
    if not status:
        assert faults.counts() == {DRIVER: 8}


def test_a_full_disk_takes_nothing_more(tmp_path, library):
    faults = Faults(library, tmp_path / "shared", tmp_path / "below")
    faults.strike(DRIVER, 3, Kind.FULL)
    status, said, sizes = write(tmp_path, faults)
    assert status == 1
    assert said.startswith(f"{errno.ENOSPC}\n")  # of the second write
    assert f"[Errno {errno.ENOSPC}] No space left on device: 'd/two'" in said
    assert sizes == {"one": 5}


def test_power_is_lost_with_what_is_not_on_the_disk(tmp_path, library):
    """WRITER waits for the disk with its first file alone."""
    seen = set()
    for number in range(8):
        directory = tmp_path / str(number)
        directory.mkdir()
        faults = Faults(library, directory / "shared", directory / "below")
        assert write(directory, faults)[0] == 0
        assert faults.lose_power(directory / "below", random.Random(number)) == 1
        assert (directory / "below/d/one").read_bytes() == b"0123456789" * 2
        seen.add((directory / "below/d/two").read_bytes())
    assert {b"", b"0123456789"} < seen
    assert any(content.endswith(bytes(2)) for content in seen)


@pytest.fixture(scope="module")
def torture(tmp_path_factory):
    torture = Torture(tmp_path_factory.mktemp("torture"), seed=7, commands=8, share=0.0)
    yield torture
    torture.server.close()


def test_what_is_lost_or_other_is_seen(tmp_path, torture):
    words = ["curve=1", "width=4", "depth=1", "steps=200", "eval_every=100", "logger=none", "kept=kept.csv"]

    def command(name: str) -> Command:
        (tmp_path / name).mkdir()
        return Command(words, tmp_path / name / "given", tmp_path / name, torture.library, torture.server.start)

    one, other = command("one"), command("other")
    one.give()
    other.give()
    other.compare(one)
    assert one.status == other.status == 0
    assert not one.wrong + other.wrong
    [result] = other.directory.rglob("result.json")
    record = json.loads(result.read_text())
    history = result.with_name("history.csv")
    history.write_text(history.read_text().replace("\n100,", "\n101,"))
    (other.directory / "kept.csv").unlink()
    (result.parent / ".history.csv.0123").touch()
    other._look(None, "Traceback (most recent call last)")
    result.write_text(json.dumps(record | {"best_test_acc": 0.0}))
    assert [text.split(":")[0] for text in other.wrong] == ["traceback", "lost"]
    assert set(finished(other.directory)) == {str(result)}
    other.wrong.clear()
    other._look(None, "")
    assert len(other.wrong) == 1
    other.compare(one)
    # the record was rewritten and is damaged, so it and the state are missing; history, table, a file
    assert len({text.split(":")[1] for text in other.wrong}) == 6


def test_a_dozen_strikes(torture, capsys):
    torture.until(12, first=6)  # at a sweep in workers, and at the files of W&B
    assert not torture.tally.wrong, capsys.readouterr().out
    assert {"power lost", "disk full from it on", "killed in the middle of it"} <= torture.tally.strikes.keys()

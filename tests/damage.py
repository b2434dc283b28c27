"""Damages a run's files at random places and in every way, and judges what comes of it. By itself, as many as asked:

    python tests/damage.py [--number 1000] [--seed 0]

A damaged file never becomes a result: the same command ends with the bits of the run that nobody disturbed, or refuses
in one line. The same holds for ``load``. What only looks (status, table, report) never ends with a traceback.
"""

import argparse
import contextlib
import itertools
import json
import logging
import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from conftest import small

from fractal_ifs.config.run import Job
from fractal_ifs.errors import ConfigError
from fractal_ifs.results import finished_runs, rows
from fractal_ifs.runs import records
from fractal_ifs.runs.load import load
from fractal_ifs.runs.records import RunRecord
from fractal_ifs.sweeps import status
from fractal_ifs.sweeps.sweep import train_jobs
from fractal_ifs.sweeps.table import frame
from fractal_ifs.training.train import train

NEWEST, PREVIOUS = CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")
TRAININGS = ("joint", "layerwise")
FILES = {  # of the states in which a run may lie there
    "finished": (*CHECKPOINTS, "result.json", "history.csv"),
    "interrupted": (*CHECKPOINTS, "result.json", "history.csv", "train.log"),
    "killed": (*CHECKPOINTS, "begun.json", "history.csv", ".lock"),
}


def bit(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


def some(content: bytes, chance: random.Random, length: int, zeros: bool) -> bytes:
    """Other bytes from a random place on."""
    place = chance.randrange(max(len(content) - length, 1))
    other = bytes(length) if zeros else chance.randbytes(length)
    return content[:place] + other[: len(content) - place] + content[place + length :]


CONTENTS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bit": bit,
    "4 bytes": lambda content, chance: some(content, chance, 4, False),
    "512 zeros": lambda content, chance: some(content, chance, 512, True),
    "torn": lambda content, chance: content[: chance.randrange(len(content))],
    "garbage": lambda content, chance: chance.randbytes(len(content)),
    "longer": lambda content, chance: content + chance.randbytes(chance.randrange(1, 600)),
    "empty": lambda content, chance: b"",
}


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("something")


PLACES: dict[str, Callable[[Path], None]] = {  # what may stand in a file's place
    "nothing": lambda path: None,
    "a directory": _directory,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a pipe": lambda path: os.mkfifo(path),
    "a file that nobody may read": lambda path: path.touch(0),
}


@dataclass(frozen=True)
class Damage:
    """One damage, which is the same whenever it is done again."""

    training: str
    state: str
    files: tuple[str, ...]
    kind: str
    seed: int

    def do(self, directory: Path) -> None:
        """Damage the files of a run."""
        chance = random.Random(self.seed)
        for name in self.files:
            path = directory / name
            if self.kind in CONTENTS:
                path.write_bytes(CONTENTS[self.kind](path.read_bytes(), chance))
            else:
                path.unlink()
                PLACES[self.kind](path)

    def __str__(self) -> str:
        return f"{self.training}, {self.state}: {self.kind} for {' and '.join(self.files)} (seed {self.seed})"


def damages(number: int, seed: int) -> list[Damage]:
    """So many damages: all kinds at all files in turn, at random places."""
    chance = random.Random(seed)
    kinds = (*CONTENTS, *PLACES) if os.geteuid() else tuple(k for k in (*CONTENTS, *PLACES) if "may read" not in k)
    targets: list[tuple[str, tuple[str, ...]]] = [(state, (name,)) for state, names in FILES.items() for name in names]
    targets += [(state, CHECKPOINTS) for state in FILES]
    every = [(training, *target, kind) for training in TRAININGS for target in targets for kind in kinds]
    chance.shuffle(every)
    return [Damage(*each, chance.randrange(2**32)) for each in itertools.islice(itertools.cycle(every), number)]


class Waits(BaseException):
    """Something takes too long; nobody catches this who catches an Exception."""


@contextlib.contextmanager
def within(seconds: float) -> Generator[None]:
    """Raise Waits if it takes longer, as where somebody waits for the other end of a pipe."""

    def end(*_: Any) -> None:
        raise Waits(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Runs:
    """Undisturbed runs, and the same ones as they lie there half done."""

    def __init__(self, root: Path):
        self.root = root
        for training in TRAININGS:
            config = self.config(training)
            for rounds in (3, 1):  # an interrupt writes a checkpoint
                self._interrupt(Job(config, root / training / "interrupted"), rounds)
            finished = Path(shutil.copytree(root / training / "interrupted", root / training / "finished"))
            ended = train_jobs([Job(config, finished), Job(config, None)])
            assert isinstance(ended[0], RunRecord)
            assert isinstance(ended[1], RunRecord)
            assert _timeless(dict(ended[0]), False) == _timeless(dict(ended[1]), False)
            killed = Path(shutil.copytree(root / training / "interrupted", root / training / "killed"))
            (killed / "result.json").unlink()
            records.write_begun(killed, records.Begun(config, None))
            (killed / ".lock").write_text(json.dumps({"host": "elsewhere", "pid": 1, "driver": 1}))

    @staticmethod
    def config(training: str) -> Any:
        return small(width=4, depth=2, steps=100, eval_every=20, training=training, data__train_size=300)

    @staticmethod
    def _interrupt(job: Job, rounds: int) -> None:
        left = [rounds]

        def stop(_: Any) -> None:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            train([job], threads=1, report=stop)

    def judge(self, damage: Damage) -> tuple[str, str]:
        """What came of a damage, in a word, and more of it in a line.

        ``equal``: the bits of the undisturbed run. ``refused``: a line that says so. ``OTHER``: a result that isn't
        the undisturbed run's. ``BROKEN``: an error that isn't meant for the user.
        """
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            directory = Path(folder) / "sweep" / "run"
            shutil.copytree(self.root / damage.training / damage.state, directory, symlinks=True)
            damage.do(directory)
            try:
                with within(60):
                    self._look(directory)
                    word, more = self._trained(damage, directory)
                    self._look(directory)
                    loaded = self._loaded(damage, directory, word)
            except (Exception, Waits) as error:
                logging.getLogger(__name__).debug("%s", damage, exc_info=error)
                return "BROKEN", f"{type(error).__name__}: {error}".splitlines()[0]
            return loaded or (word, more)

    @staticmethod
    def _look(directory: Path) -> None:
        """All that reads a sweep's directory and trains nothing."""
        with contextlib.suppress(ConfigError):
            status.show(directory.parent)
        with contextlib.suppress(ConfigError):
            rows.read_runs([directory.parent])
        with contextlib.suppress(ConfigError):
            finished_runs.add(directory.parents[1] / "kept.csv", [directory])
        frame(directory.parent)

    def _trained(self, damage: Damage, directory: Path) -> tuple[str, str]:
        try:
            [outcome] = train_jobs([Job(self.config(damage.training), directory)])
        except ConfigError as error:
            outcome = error
        if isinstance(outcome, ConfigError | OSError):
            assert isinstance(outcome, OSError) or "\n" not in str(outcome), outcome
            return "refused", str(outcome)
        if isinstance(outcome, Exception):
            raise outcome
        straight = self.root / damage.training / "finished"
        exact = damage.state == "finished"
        wanted = records.read_record(straight)
        assert wanted is not None
        assert isinstance(outcome, RunRecord)
        found, expected = [_timeless(outcome, exact)], [_timeless(wanted, exact)]
        with contextlib.suppress(OSError):
            found.append(_timeless(json.loads((directory / "result.json").read_text()), exact))
            expected.append(_timeless(json.loads((straight / "result.json").read_text()), exact))
        found.append(_history(directory, exact))
        expected.append(_history(straight, exact))
        if damage.state != "finished" or damage.files == ("result.json",):
            found.append(_bits(directory))
            expected.append(_bits(straight))
        if found != expected:
            return "OTHER", "another record, history or network"
        return "equal", ""

    def _loaded(self, damage: Damage, directory: Path, word: str) -> tuple[str, str] | None:
        """What ``load`` gives, where that is another network than the undisturbed run's, or none for a whole run."""
        try:
            run = load(directory)
        except ConfigError as error:
            said = f"load: {error}"
            if "\n" in said:
                return "BROKEN", said
            if word == "equal" and NEWEST not in damage.files:
                return "OTHER", said
            return ("refused", said) if word == "equal" else None
        wanted = load(self.root / damage.training / "finished")
        if run.record.status != "finished":
            return None
        same = all(map(torch.equal, run.model.parameters(), wanted.model.parameters()))
        columns = ["step", "train_loss", "test_loss", "test_acc"]
        same &= run.history[columns].equals(wanted.history[columns])
        best = (load(directory, best=True), load(self.root / damage.training / "finished", best=True))
        same &= all(map(torch.equal, *(each.model.parameters() for each in best)))
        return None if same else ("OTHER", "load: another network or history")


def _timeless(record: Mapping[str, Any], exact: bool) -> Any:
    return {k: v for k, v in record.items() if exact or k not in ("seconds", "digests")}


def _history(directory: Path, exact: bool) -> list[list[str]] | str:
    try:
        lines = (directory / "history.csv").read_text().splitlines()
    except (OSError, ValueError) as error:
        return type(error).__name__
    return [[v for i, v in enumerate(line.split(",")) if exact or i != 1] for line in lines]


def _bits(directory: Path) -> list[bytes]:
    state = torch.load(directory / NEWEST, weights_only=True)
    return [state[name].numpy().tobytes() for name in ("params", "exp_avg", "exp_avg_sq", "best_params")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="print every damage and what came of it, not only the bad")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    counts: Counter[str] = Counter()
    where: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as root:
        runs = Runs(Path(root))
        for damage in damages(given.number, given.seed):
            word, more = runs.judge(damage)
            counts[word] += 1
            if given.all or word.isupper():
                print(f"{word}: {damage}: {more}".replace(str(root), ""), flush=True)
            if word.isupper():
                where[f"{word} {damage.state} {'+'.join(damage.files)}"] += 1
    for name, count in sorted(where.items()):
        print(f"{count:5} {name}")
    print(f"{given.number} damages: {', '.join(f'{n} {word}' for word, n in counts.most_common())}")


if __name__ == "__main__":
    main()

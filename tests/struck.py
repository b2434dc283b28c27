"""A training command that is struck and given again, and what must be true whenever it has ended."""

import contextlib
import csv
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import DRIVER, WANDB, Faults, Kind, role_name
from killed import CIRCUMSTANCES, results

SECONDS = 200  # after which a command hangs
AT_OPERATIONS = {
    "killed before it": Kind.KILL_BEFORE,
    "killed in the middle of it": Kind.TEAR,
    "killed after it": Kind.KILL_AFTER,
    "disk full from it on": Kind.FULL,
    "input/output error": Kind.FAULT,
    "power lost": Kind.STOP,
    "SIGTERM": Kind.STOP,
    "SIGINT to all": Kind.STOP,
    "another killed": Kind.STOP,
}
AT_MOMENTS = ("SIGKILL", "SIGTERM", "SIGINT to all", "another killed")
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT to all": signal.SIGINT}
SERVICE = -1  # as a role: W&B's service
# What a run leaves that was killed just after its record: nobody writes into the directory of a finished run any more.
LEFT = ("begun.json", ".lock", ".kept.csv.lock")  # nobody holds it
OTHERS = re.compile("/wandb/|/slurm/.submission_file_")  # files that W&B and submitit write


@dataclass(frozen=True)
class Strike:
    """What happens to a command, and when: at the N-th operation of a role, or after some time."""

    kind: str
    role: int = DRIVER
    at: int = 0
    after: float = 0.0  # a share of the time that the undisturbed command takes
    target: int = DRIVER  # whom "another killed" kills
    call: str = ""  # at which system call W&B's service is killed
    hurry: bool = False  # whether it is given again while its workers or Slurm tasks may still be there

    def __str__(self) -> str:
        whom = f": {_named(self.target)}" if self.kind == "another killed" else ""
        whom += "; given again at once" if self.hurry else ""
        if self.call:
            return f"{_named(SERVICE)} killed at {self.call} {self.at}"
        when = f"operation {self.at} of {role_name(self.role)}" if self.at else f"after {self.after:.0%} of its time"
        return f"{when}: {self.kind}{whom}"

    @classmethod
    def draw(cls, chance: random.Random, undisturbed: "Command", straced: bool) -> "Strike":
        """A strike at a command, which is known from when nobody disturbed it."""
        others = [role for role in undisturbed.counts if role != WANDB]
        hurry = chance.random() < 0.3
        if "logger=wandb" in undisturbed.words:
            others.append(SERVICE)
        if straced and SERVICE in others and chance.random() < 0.3:
            call, most = chance.choice([("write", 8), ("openat", 4), ("pwrite64", 2), ("mkdirat", 1), ("read", 9)])
            return cls("another killed", target=SERVICE, at=chance.randint(1, most), call=call, hurry=hurry)
        if chance.random() < 0.12:
            return cls(
                chance.choice(AT_MOMENTS), after=chance.uniform(0.01, 1), target=chance.choice(others), hurry=hurry
            )
        kind = chance.choice(list(AT_OPERATIONS))
        role = chance.choice(list(undisturbed.counts))
        targets = [other for other in others if other != role] or [DRIVER]
        # Fewer operations are left where a run goes on: rather the early ones.
        at = 1 + int(undisturbed.counts[role] * chance.random() ** 1.3)
        return cls(kind, role, at, target=chance.choice(targets), hurry=hurry)

    @property
    def statuses(self) -> set[int]:
        """How the command may end, if it is struck. With 0 it must be complete."""
        kills = {-signal.SIGKILL, 0} if self.after else {-signal.SIGKILL}  # at a moment it may have ended already
        if self.kind in SIGNALS:
            kind = SIGNALS[self.kind]
            return {0, -kind, 128 + kind}
        if self.kind in ("disk full from it on", "input/output error"):
            return {0, 1}
        if self.kind == "another killed":
            return {SERVICE: {0}, DRIVER: kills}.get(self.target, {0, 1})
        if self.kind == "power lost" or self.role == DRIVER or self.after:
            return kills
        return {0, 1} | (kills if self.role == WANDB else set())


def _named(role: int) -> str:
    return "W&B's service" if role == SERVICE else role_name(role)


@dataclass
class Command:
    """A training command in a directory, given again and again.

    Args:
        start: begins it with some words in a directory, with its streams in a file, and an environment.
        shared: a directory for what is no part of the command's.
    """

    words: Sequence[str]
    directory: Path
    shared: Path
    library: Path
    start: Callable[[Sequence[str], Path, Path, dict[str, str]], Any]
    given: int = 0
    status: int = 0
    struck: bool = False
    seconds: float = 0.0
    counts: dict[int, int] = field(default_factory=dict)  # of file operations, by role
    wrong: list[str] = field(default_factory=list)
    powerless: bool = False  # whether the power was lost once
    left: set[int] = field(default_factory=set)  # processes that may not have ended yet
    ended: dict[str, Any] = field(default_factory=dict)  # what is finished and must stay as it is

    def give(self, strike: Strike | None = None, chance: random.Random | None = None, usual: float = 0) -> None:
        """Give the command, strike, wait for the end of all its processes, and look at what is there.

        ``usual``: how many seconds it takes undisturbed.
        """
        chance = chance or random.Random(0)
        self.given += 1
        self.directory.mkdir(exist_ok=True, parents=True)
        output = self.shared / f"output{self.given}"
        faults = Faults(self.library, self.shared / f"faults{self.given}", self.directory)
        trace = self.shared / f"strace{self.given}"
        if strike and strike.call:
            faults.strike_service(strike.call, strike.at, trace)
        elif strike and strike.at:
            faults.strike(strike.role, strike.at, AT_OPERATIONS[strike.kind])
        begun = time.monotonic()
        process = self.start(self.words, self.directory, output, {**faults.environment, "WANDB_MODE": "offline"})
        acted = hung = False
        at_once = [process.pid, *self.left]
        while process.poll() is None:
            passed = time.monotonic() - begun
            if strike and not acted:
                if (pid := faults.struck) and AT_OPERATIONS[strike.kind] == Kind.STOP and _state(pid) in "TX":
                    acted = _act(strike, at_once, faults, self.directory, chance)
                    _signal(pid, signal.SIGCONT)
                elif strike.after and passed > strike.after * usual:
                    acted = _act(strike, at_once, faults, self.directory, chance)
            if passed > SECONDS:
                hung = True
                for pid in {process.pid, *faults.processes().values()}:
                    _signal(pid, signal.SIGKILL)
            time.sleep(0.003)
        if hung:
            self.wrong.append("hung: no end")
        self.left |= {*faults.processes().values()}
        if not (strike and strike.hurry and process.returncode):
            self._wait()
        self.seconds, self.counts, self.status = time.monotonic() - begun, faults.counts(), process.returncode
        traced = trace.exists() and "killed by SIGKILL" in trace.read_text(errors="replace")
        self.struck = bool(acted or (faults.struck and strike and strike.kind != "another killed") or traced)
        self.powerless |= bool(self.struck and strike and strike.kind == "power lost")
        self._look(strike if self.struck else None, output.read_text(errors="replace"))

    def _wait(self) -> None:
        """Until all processes of this command have ended: workers notice that their driver has."""
        for pid in self.left:
            if not _gone(pid, 40):
                self.wrong.append(f"hung: process {pid} outlives its command")
                _signal(pid, signal.SIGKILL)
        self.left.clear()
        while "hydra/launcher=slurm" in self.words and _slurm("squeue", "--noheader"):
            time.sleep(0.5)

    def _look(self, strike: Strike | None, text: str) -> None:
        allowed = strike.statuses if strike else {0}
        if self.status not in allowed:
            self.wrong.append(f"status: {self.status}: {text[-600:]}")
        if "Traceback" in text:
            self.wrong.append(f"traceback: {text[text.index('Traceback') :][-1500:]}")
        if self.status == 1 and not re.search(r"^error: |failed", text, re.MULTILINE):
            self.wrong.append(f"untold: {text[-600:]}")
        before, self.ended = self.ended, finished(self.directory)
        for what, content in before.items():
            if self.ended.get(what) != content:
                self.wrong.append(f"lost: {what}: was {content}, is {self.ended.get(what)}")

    def compare(self, undisturbed: "Command") -> None:
        """Add to ``wrong`` what is not as in the command that nobody disturbed."""
        ours, theirs = found(self.directory), found(undisturbed.directory)
        self.wrong += [f"bits: {what} is missing" for what in theirs.keys() - ours.keys()]
        self.wrong += [f"bits: {what} is too much" for what in ours.keys() - theirs.keys()]
        for what in ours.keys() & theirs.keys():
            if self.powerless and "/.hydra/" in what:  # Hydra's files are not waited for; the record has the config too
                continue
            if ours[what] != theirs[what]:
                self.wrong.append(f"bits: {what}: {ours[what]}, undisturbed {theirs[what]}"[:1500])


def _act(strike: Strike, began: Sequence[int], faults: Faults, directory: Path, chance: random.Random) -> bool:
    """Strike from outside. ``began``: the driver, and what is left of commands before. Returns whether it struck."""
    driver = began[0]
    everyone = [*began, *faults.processes().values()]
    if strike.kind == "power lost":
        everyone += services(everyone)
        for pid in everyone:
            _signal(pid, signal.SIGKILL)
        for pid in everyone:
            _gone(pid, 10)
        faults.lose_power(directory, chance)
    elif strike.kind == "SIGINT to all":  # as a terminal does
        try:
            os.killpg(driver, signal.SIGINT)
        except ProcessLookupError:  # it has ended
            return False
    elif strike.kind in ("SIGTERM", "SIGKILL"):
        _signal(driver, signal.Signals[strike.kind])
    elif strike.target == SERVICE:
        return any([_signal(pid, signal.SIGKILL) for pid in services(everyone)])
    else:
        pid = driver if strike.target == DRIVER else faults.processes().get(strike.target, 0)
        return bool(pid) and _signal(pid, signal.SIGKILL)
    return True


def _slurm(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def services(parents: Sequence[int]) -> list[int]:
    """The services of W&B that these processes have started."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            name, _, fields = path.read_text().rpartition(")")
            if name.endswith("(wandb-core") and int(fields.split()[1]) in parents and fields.split()[0] != "Z":
                pids.append(int(path.parent.name))
    return pids


def _state(pid: int) -> str:
    """As in /proc; X where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "X"


def _gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _state(pid) not in "XZ":
        if time.monotonic() > deadline:
            return False
        time.sleep(0.003)
    return True


def _signal(pid: int, kind: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, kind)
        return True
    return False


def finished(directory: Path) -> dict[str, Any]:
    """What has ended below a directory, as it must stay: records by when they were written, rows of ``kept``."""
    there: dict[str, Any] = {}
    for path in directory.rglob("result.json"):
        try:
            status = json.loads(path.read_bytes())["status"]
        except ValueError:
            there[str(path)] = "torn"
            continue
        if status in ("finished", "diverged", "stopped"):
            about = path.stat()
            there[str(path)] = (about.st_mtime_ns, about.st_ino, hashlib.sha256(path.read_bytes()).hexdigest())
    for row in _rows(directory / "kept.csv"):
        there[f"kept {row['fingerprint']}"] = row
    return there


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def found(directory: Path) -> dict[str, Any]:
    """All that a command has found: weights, moments, histories, records, tables; and what it shouldn't leave."""
    there: dict[str, Any] = {}
    for run, (state, history, record) in results(directory).items():
        told = {name: value for name, value in json.loads(record).items() if name != "digests"}
        there |= {f"state of {run}": state, f"history of {run}": history, f"record of {run}": told}
    for path in [directory / "kept.csv", *directory.glob("multirun/*/results.csv")]:
        rows = [{name: value for name, value in row.items() if name not in CIRCUMSTANCES} for row in _rows(path)]
        there[str(path.relative_to(directory))] = rows
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        if path.parent.name == ".hydra" and path.name != "hydra.yaml":
            there[name] = path.read_text()
        elif path.name[0] == "." and path.name not in (".hydra", *LEFT) and not OTHERS.search(name):
            there[name] = "a file that is left"
    return there


@dataclass
class Tally:
    """What was struck, and what was wrong."""

    strikes: Counter = field(default_factory=Counter)
    wrong: Counter = field(default_factory=Counter)  # by the word before the colon

    def __str__(self) -> str:
        lines = [f"{count:5} {kind}" for kind, count in self.strikes.most_common()]
        words = {"lost": "results lost", "bits": "with other bits", "traceback": "tracebacks", "hung": "hung"}
        words |= {"status": "with another exit status", "untold": "failures without a line"}
        told = ", ".join(f"{self.wrong[word]} {text}" for word, text in words.items())
        return "\n".join([*lines, f"{self.strikes.total()} strikes: {told}"])


def straced() -> bool:
    """Whether strace is there and may trace here, so that W&B's service can be struck at its system calls."""
    return shutil.which("strace") is not None and os.system("strace -qqq -o /dev/null true 2>/dev/null") == 0


def case(
    draw: random.Random, undisturbed: Command, command: Command, tally: Tally, strace: bool, say: Callable[[str], None]
) -> None:
    """Strike at a command, once or several times, until it comes to its end, and compare."""
    while True:
        strike = Strike.draw(draw, undisturbed, strace)
        place = len(command.wrong)
        command.give(strike, random.Random(draw.random()), undisturbed.seconds)
        if command.struck:
            tally.strikes[strike.kind + (f": {_named(strike.target)}" if strike.kind == "another killed" else "")] += 1
        say(f"{strike}: {_outcome(command, place)}")
        if command.status == 0 or draw.random() < 0.3:
            break
    place = len(command.wrong)
    if command.status != 0 or command.struck:
        command.give()
    if command.status == 0:
        command.compare(undisturbed)
    for text in command.wrong:
        tally.wrong[text.split(":")[0]] += 1
    say(f"undisturbed again: {_outcome(command, place)}")


def _outcome(command: Command, place: int) -> str:
    how = f"status {command.status} in {command.seconds:.1f} s" + ("" if command.struck else ", not struck")
    return "\n  WRONG ".join([how, *command.wrong[place:]])

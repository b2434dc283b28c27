"""Strikes at the N-th file operation of a process of a command: what ``faults.c`` does, told and read from here."""

import ctypes
import mmap
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

DRIVER, WORKER, WANDB, TASK, ROLES, FILES = 0, 1, 8, 9, 16, 4096  # as in faults.c


class Kind(IntEnum):
    """What happens at the operation, as in faults.c."""

    NOTHING = 0
    KILL_BEFORE = 1
    TEAR = 2  # half of the bytes are written, then the process is killed
    KILL_AFTER = 3
    FULL = 4  # the disk is full from here on
    FAULT = 5  # this operation fails with EIO
    STOP = 6  # the process is stopped, so that another one can be struck


def role_name(role: int) -> str:
    """``driver``, ``worker 1``, ``W&B's files``, ``task 1``: whose operations are counted together."""
    if role == WANDB:
        return "W&B's files"
    return "driver" if role == DRIVER else f"worker {role}" if role < WANDB else f"task {role - TASK + 1}"


class _Shared(ctypes.Structure):
    _fields_ = [
        ("below", ctypes.c_char * 1024),
        ("service", ctypes.c_char * 256),
        ("role", ctypes.c_int),
        ("at", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("struck", ctypes.c_int),
        ("full", ctypes.c_int),
        ("workers", ctypes.c_int),
        ("tasks", ctypes.c_int),
        ("counts", ctypes.c_int * ROLES),
        ("processes", ctypes.c_int * ROLES),
        ("files", ctypes.c_int),
        ("inodes", ctypes.c_ulong * FILES),
    ]


def build(directory: Path) -> Path:
    """Compile faults.c. Raises CalledProcessError where that fails, FileNotFoundError without a compiler."""
    library = directory / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


class Faults:
    """The strike at one command, and what was counted.

    Args:
        file: is made; the command finds it by ``environment``.
        below: the directory whose file operations are counted.
    """

    def __init__(self, library: Path, file: Path, below: Path):
        self.environment = {"LD_PRELOAD": str(library), "FAULTS": str(file)}
        with open(file, "w+b") as shared:
            shared.truncate(ctypes.sizeof(_Shared))
            self._shared = _Shared.from_buffer(mmap.mmap(shared.fileno(), 0))
        self._shared.below = str(below.resolve()).encode()

    def strike(self, role: int, at: int, kind: Kind) -> None:
        """Strike at operation ``at`` of a role, counted from 1."""
        self._shared.role, self._shared.at, self._shared.kind = role, at, kind

    def strike_service(self, call: str, at: int, trace: Path) -> None:
        """Kill W&B's service at such a system call of one of its threads, by strace, which then says so in a file."""
        strace = f"{shutil.which('strace')} -D -f -qqq -o {trace} -e trace={call}"
        self._shared.service = f"{strace} -e inject={call}:signal=SIGKILL:when={at}".encode()

    @property
    def struck(self) -> int:
        """The process that was struck, or 0."""
        return int(self._shared.struck)

    def counts(self) -> dict[int, int]:
        """The operations of each role that had any."""
        return {role: count for role, count in enumerate(self._shared.counts) if count}

    def processes(self) -> dict[int, int]:
        """The process of each role that there was."""
        return {role: process for role, process in enumerate(self._shared.processes) if process}

    def lose_power(self, below: Path, chance: random.Random) -> int:
        """Tear the files that were written and are not on the disk. Returns how many these are."""
        torn = 0
        for path in self._not_on_disk(below):
            size = path.stat().st_size
            length = chance.choice([0, size, chance.randint(0, size)])
            with open(path, "r+b") as file:
                if chance.random() < 0.5:
                    file.truncate(length)
                else:
                    file.seek(length)
                    file.write(bytes(size - length))  # its length was known already
            torn += 1
        return torn

    def _not_on_disk(self, below: Path) -> Iterator[Path]:
        inodes = set(self._shared.inodes[: min(self._shared.files, FILES)]) - {0}
        # In an order that doesn't depend on the random names of temporary files.
        every = sorted(below.rglob("*"), key=lambda path: re.sub(r"\.[0-9a-f]{32}$", "", str(path)))
        files = (path for path in every if path.is_file() and not path.is_symlink())
        return (path for path in files if path.stat().st_ino in inodes)

"""One process at a time trains in a directory, or writes a table: the file system locks it, until the process ends.

A killed process may leave the lock's file behind, but nobody holds it, so it stops nobody. On a network file system
with locks (NFS, Lustre with ``flock``) they hold between machines. Without locks we warn once and lock nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import resource
import socket
import time
from pathlib import Path
from typing import Any, ClassVar, cast

from fractal_ifs.errors import Refused, reason, short
from fractal_ifs.files import opened_in_place, read

log = logging.getLogger(__name__)

NAME = ".lock"
UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
GLANCE = 0.5  # seconds to wait, because ``held`` takes the lock for a moment
FILES = 8192  # twice as many as the runs of the largest stack
PATIENCE = 60.0  # seconds to wait for the workers of a killed driver, or for a preempted Slurm node, to end


class Busy(Refused):
    """Another process trains in this directory, or writes this table."""


class Lock:
    """A lock's file, held until ``release`` or the end of the process. ``of_directory`` and ``of_table`` take one.

    Waits up to ``patience`` seconds, or ``behind_workers`` if its holder is a worker whose driver was killed, and in a
    Slurm job. Raises Busy if another process keeps the lock, in the words of ``busy``, whose ``{}`` stands for who;
    and Refused where a link stands in the place of its file.
    """

    _warned: ClassVar[bool] = False  # whether this process has said that the file system has no locks

    def __init__(self, path: Path, busy: str, patience: float, behind_workers: float):
        self.path, self.file = path, -1
        begun = time.monotonic()
        while not self._taken():
            owner = _owner(self.path)
            gone = owner.get("host") == socket.gethostname() and not _alive(owner.get("driver"))
            most = behind_workers if gone or "SLURM_JOB_ID" in os.environ else patience
            if time.monotonic() - begun > most:
                by = f"process {owner.get('pid')} on {owner.get('host')}" if owner else "another process"
                raise Busy(busy.format(short(by)))
            time.sleep(0.05)

    @property
    def held(self) -> bool:
        """Whether the file system keeps others out; False where it has no locks."""
        return self.file >= 0

    def _taken(self) -> bool:
        try:
            file = opened_in_place(self.path, os.O_RDWR)
        except PermissionError:
            if held(self.path):
                return False
            if (user := _other_user(self.path)) is None:
                raise
            raise Busy(f"{self.path}: is {user}'s, who may be at work there; if not, it may be removed") from None
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise
            raise Refused(f"{self.path}: {reason(error)}; remove it") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno in UNSUPPORTED:
                if not Lock._warned:
                    log.warning("%s: no locks in this file system: start no second sweep there", self.path.parent)
                Lock._warned = True
                return True
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        try:
            there = os.path.samestat(os.fstat(file), os.stat(self.path))
        except FileNotFoundError:
            there = False
        except OSError:
            os.close(file)
            raise
        if not there:  # another process has removed the file meanwhile
            os.close(file)
            return False
        self.file = file
        with contextlib.suppress(OSError):  # where the disk is full others aren't told who has it
            me = {"host": socket.gethostname(), "pid": os.getpid(), "driver": driver()}
            os.ftruncate(file, 0)
            os.write(file, json.dumps(me).encode())
        return True

    def release(self) -> None:
        """Remove the lock. Does nothing if it is not held."""
        if self.file >= 0:
            with contextlib.suppress(OSError):  # the directory may be read-only by now
                self.path.unlink()
            os.close(self.file)
            self.file = -1


def of_directory(directory: Path, what: str) -> Lock:
    """The lock of a directory. ``what``: a "run" or a "sweep".

    Waits up to ``PATIENCE`` for the workers of a killed driver. Does so too in a Slurm job, where the holder may be an
    earlier attempt of the same job on another node.
    """
    return Lock(directory / NAME, f"{directory}: {{}} trains this {what} now; wait for it, or end it", GLANCE, PATIENCE)


def runs_at_a_time() -> int:
    """How many runs a process may train at a time: each has a file open, its lock, and half of all files are for these.

    Raises this process's own limit to ``FILES``, or what it may be: 1,024 are usual, and too few on a GPU.
    """
    now, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked = FILES if limit == resource.RLIM_INFINITY else min(FILES, limit)
    if now != resource.RLIM_INFINITY and now < asked:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (asked, limit))
            now = asked
    return max(1, (FILES if now == resource.RLIM_INFINITY else now) // 2)


def of_table(path: Path, patience: float) -> Lock:
    """The lock of a table that several processes write, which lies beside it. Waits up to ``patience`` seconds."""
    return Lock(path.with_name(f".{path.name}{NAME}"), f"{path}: {{}} is writing it", patience, patience)


def trained(directory: Path) -> bool:
    """Whether a process trains in this directory now."""
    return held(directory / NAME)


def held(path: Path) -> bool:
    """Whether a process holds the lock of this file now."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES)
    finally:
        os.close(file)
    return False


def driver() -> int:
    """The id of the process that the user started: this process, or the parent of this worker."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    return os.getpid() if parent is None or parent.pid is None else parent.pid


def _owner(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read(path, 10_000))
    except (OSError, ValueError, RecursionError):
        return {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def _other_user(path: Path) -> str | None:
    """The user whom a file belongs to, if that isn't this process's."""
    try:
        user = path.stat().st_uid
    except OSError:
        return None
    try:
        return None if user == os.geteuid() else f"user {path.owner()}"
    except KeyError:  # one without a name on this machine
        return f"user {user}"


def _alive(process: Any) -> bool:
    """Whether a process of this machine, or perhaps of another container on it, may be alive."""
    if not (type(process) is int and process > 0):
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True

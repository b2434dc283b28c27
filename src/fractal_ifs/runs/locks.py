"""Who trains in a directory: one process at a time, by a lock of the file system, which ends with the process.

A lock that a killed process leaves behind is a file that nobody holds, and in nobody's way. Locks hold between the
machines of a network file system that supports them (NFS, Lustre with ``flock``); where there is none, that is said
once and nothing is locked.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path

from fractal_ifs.errors import ConfigError

log = logging.getLogger(__name__)

NAME = ".lock"
UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
GLANCE = 0.5  # seconds in which one who only looks whether a lock is held has let go again
PATIENCE = 60.0  # seconds for the workers of a driver that is gone, or for a preempted node, to end

_said: list[bool] = []  # not empty once it was said that there are no locks here


class Busy(ConfigError):
    """Another process trains there."""


class Lock:
    """The lock of a directory, held until ``release`` or the end of the process. Raises Busy.

    One that a process of this machine holds for an ended one (a worker whose driver was killed) is waited for, and so
    is any lock in a Slurm job, whose node may be another than before.
    """

    def __init__(self, directory: Path, what: str):
        self.path = directory / NAME
        self.file = -1
        begun = time.monotonic()
        while not self._taken():
            owner = _owner(self.path)
            gone = owner.get("host") == socket.gethostname() and not _alive(int(owner.get("driver", 0)))
            patience = PATIENCE if gone or "SLURM_JOB_ID" in os.environ else GLANCE
            if time.monotonic() - begun > patience:
                by = f"process {owner.get('pid')} on {owner.get('host')}" if owner else "another process"
                raise Busy(f"{directory}: {by} trains this {what} now; wait for it, or end it")
            time.sleep(0.05)

    def _taken(self) -> bool:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno in UNSUPPORTED:
                if not _said:
                    log.warning("%s: no locks in this file system: start no second sweep there", self.path.parent)
                _said.append(True)
                return True
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(self.path)):
                me = {"host": socket.gethostname(), "pid": os.getpid(), "driver": driver()}
                os.ftruncate(file, 0)
                os.write(file, json.dumps(me).encode())
                self.file = file
                return True
        os.close(file)  # its holder has removed this file meanwhile
        return False

    def release(self) -> None:
        if self.file >= 0:
            with contextlib.suppress(OSError):  # the directory may be read-only by now
                self.path.unlink()
            os.close(self.file)
            self.file = -1


def held(directory: Path) -> bool:
    """Whether a process trains there now."""
    try:
        file = os.open(directory / NAME, os.O_RDONLY)
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
    """The process that the user started: this one, or the one that this worker works for."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    return os.getpid() if parent is None or parent.pid is None else parent.pid


def _owner(path: Path) -> dict:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

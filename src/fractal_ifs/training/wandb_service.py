"""W&B's service process may hang. So every call of W&B has a deadline; past it, the service is killed.

The call then fails as one whose service has died, and ``wandb_run`` goes on in a new service. A thread watches over
that until the very end of this process, where W&B waits for its service once more.
"""

import atexit
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Generator
from pathlib import Path

POLL = 0.5
GRACE = 10.0  # seconds in which a call returns once its service is killed; one that doesn't never will
EXIT_SECONDS = 3.0  # for W&B to end its service at the end of this process


class Call:
    """A call of W&B that is under way. ``left`` is the time until its deadline."""

    def __init__(self, left: float):
        self.left, self.late = left, False


_calls: set[Call] = set()
_watch: threading.Thread | None = None
_starting = threading.Lock()
_late = False


@contextlib.contextmanager
def within(seconds: float) -> Generator[None]:
    """Within: W&B is called, and its service is killed where that takes longer. Raises ConnectionError in that case."""
    call = Call(seconds)
    _add(call)
    try:
        yield
    except Exception as error:
        if call.late:
            raise ConnectionError(f"no answer within {seconds:.0f} s") from error
        raise
    finally:
        _calls.discard(call)


def late() -> bool:
    """Whether a deadline has passed since this was asked before."""
    global _late
    found, _late = _late, False
    return found


def lost() -> bool:
    """Whether a call of W&B has not even returned after its service was killed."""
    return any(call.left < -GRACE for call in list(_calls))


def guard_exit() -> None:
    """Let no service delay the end of this process. Call it after W&B has begun one, which it waits for at the end."""
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)  # those registered last are called first


def kill() -> None:
    """Kill the service processes that this process has started."""
    for service in services():
        with contextlib.suppress(OSError):
            os.kill(service, signal.SIGKILL)


def services() -> list[int]:
    """The service processes that this process has started."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True).stdout
        words = [line.split(maxsplit=2) for line in listed.splitlines()]
        return [int(pid) for pid, parent, name in words if int(parent) == os.getpid() and name.endswith("wandb-core")]
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):  # it has ended meanwhile
            number, rest = path.read_text().split(" (", 1)
            name, fields = rest.rsplit(") ", 1)
            state, parent = fields.split()[:2]
            if name == "wandb-core" and int(parent) == os.getpid() and state != "Z":
                found.append(int(number))
    return found


def _add(call: Call) -> None:
    global _watch
    with _starting:
        if _watch is None or not _watch.is_alive():  # a forked process has none
            _watch = threading.Thread(target=_watch_over, name="W&B's deadlines", daemon=True)
            _watch.start()
    _calls.add(call)


def _watch_over() -> None:
    global _late
    while True:
        time.sleep(POLL)
        for call in list(_calls):
            call.left -= POLL  # no more, so that time in which this process was stopped doesn't count
            if call.left < 0 and not call.late:
                call.late = _late = True
                kill()


def _at_exit() -> None:
    """End W&B's service before W&B does, which would tell of one that has died, or dies now, with a traceback."""
    import wandb

    if services():
        _calls.add(Call(EXIT_SECONDS))
    with contextlib.suppress(Exception, SystemExit):
        wandb.teardown()

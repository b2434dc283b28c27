"""Signals end a command in good order, by one KeyboardInterrupt. A second SIGINT ends it at once.

Those are Ctrl-C, ``kill``, a terminal that closes, and the two that batch systems send before a time limit.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator
from typing import Any

_came: list[list[int]] = []  # of each ``ending``, the innermost last: the signals that came
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def ending(at_once: bool = True) -> Generator[list[int]]:
    """Within: the first signal raises KeyboardInterrupt. With ``at_once``, a second SIGINT ends the process.

    Later signals are ignored otherwise, because one Ctrl-C reaches a worker twice: from the terminal and its driver.
    Signals that this process was started to ignore stay so, as by ``nohup``. Yields the numbers of those that came.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def end(number: int, _: Any) -> None:
        caught.append(number)
        if len(caught) == 1:
            raise KeyboardInterrupt
        if number == signal.SIGINT and at_once:
            os._exit(128 + number)

    heeded = [kind for kind in ENDING if signal.getsignal(kind) != signal.SIG_IGN]

    def ignored(what: Any) -> None:
        """Of exceptions that Python ignores, tell all but ours, which ``heed`` raises again."""
        if not (caught and isinstance(what.exc_value, KeyboardInterrupt)):
            hook(what)

    before = {kind: signal.signal(kind, end) for kind in heeded}
    hook, sys.unraisablehook = sys.unraisablehook, ignored
    _came.append(caught)
    try:
        yield caught
    finally:
        _came.pop()
        sys.unraisablehook = hook
        for kind, handler in before.items():
            signal.signal(kind, handler)


def heed() -> None:
    """Raise the KeyboardInterrupt of a signal whose own was lost: Python ignores exceptions while it forks.

    For places that are reached only while nothing has been interrupted.
    """
    if _came and _came[-1] and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


@contextlib.contextmanager
def deferred() -> Generator[list[int]]:
    """Within: signals only add their number to the list, so that a unit of work isn't interrupted in the middle.

    Their handlers run at the end. The list is what engines take as ``engines.protocol.Signals``. Outside the main
    thread, which alone receives signals, it stays empty.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    handlers = {kind: handler for kind in ENDING if callable(handler := signal.getsignal(kind))}
    try:
        for kind in handlers:
            signal.signal(kind, lambda number, _: caught.append(number))
        yield caught
    finally:
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
        for number in caught:
            signal.raise_signal(number)


@contextlib.contextmanager
def held_back() -> Generator[None]:
    """Within: signals are blocked. Processes that start here inherit that, and unblock them when they are ready.

    Python's handlers wait too: a thread of a library, as of numpy's OpenBLAS, takes a signal that this one blocks.
    """
    with deferred():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

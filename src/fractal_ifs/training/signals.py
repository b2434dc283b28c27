"""SIGINT and SIGTERM end a command in good order, by one KeyboardInterrupt. A second SIGINT ends it at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Generator
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)
HELD_BACK = (*ENDING, signal.SIGUSR2)


@contextlib.contextmanager
def ending(at_once: bool = True) -> Generator[None]:
    """Within: the first signal raises KeyboardInterrupt. With ``at_once``, a second SIGINT ends the process.

    Later signals are ignored otherwise, because one Ctrl-C reaches a worker twice: from the terminal and its driver.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def end(number: int, _: Any) -> None:
        caught.append(number)
        if len(caught) == 1:
            raise KeyboardInterrupt
        if number == signal.SIGINT and at_once:
            os._exit(130)

    before = {kind: signal.signal(kind, end) for kind in ENDING}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@contextlib.contextmanager
def deferred() -> Generator[list[int]]:
    """Within: signals only add their number to the list, so that a unit of work isn't interrupted in the middle.

    Their handlers run at the end. The list is what engines take as ``engines.protocol.Stop``. Outside the main thread,
    which alone receives signals, it stays empty.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    handlers = {kind: handler for kind in HELD_BACK if callable(handler := signal.getsignal(kind))}
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
    """Within: signals are blocked. Processes that start here inherit that, and unblock them when they are ready."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

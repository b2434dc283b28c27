"""SIGINT and SIGTERM end a command in good order, as one KeyboardInterrupt; a second SIGINT ends it at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)
HELD_BACK = (*ENDING, signal.SIGUSR2)


@contextlib.contextmanager
def ending(at_once: bool = True) -> Iterator[None]:
    """Within: the first of the signals raises KeyboardInterrupt. A second SIGINT ends the process if ``at_once``.

    Others are ignored, for one Ctrl-C reaches a worker twice: by the terminal and by its driver.
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
def deferred() -> Iterator[list[int]]:
    """Within: signals wait in the list, for what must be done wholly or not at all; then their handlers have them."""
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
def held_back() -> Iterator[None]:
    """Within: signals wait, and are blocked in processes that start here, until these unblock them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

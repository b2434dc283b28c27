"""Standard output and error, which may be closed, full, or a terminal that is gone: no command ends because of them."""

import codecs
import contextlib
import errno
import gc
import io
import logging
import os
import select
import shutil
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

GONE = {errno.EPIPE, errno.EIO, errno.ENXIO}  # the reader, or the terminal: nobody is left who could want more

# What this package prints besides ASCII, and how it looks where the locale can't write it. The rest is escaped.
PLAIN = {chr(sign): "+" for sign in range(0x2500, 0x2580)}  # corners and crossings of tables
PLAIN |= {"−": "-", "±": "+-", "†": "#", "─": "-", "━": "-", "│": "|", "┃": "|"}


def command(main: Callable[[], int | None]) -> NoReturn:
    """Run a door's ``main`` as this process, which then ends with its exit status.

    The status is what ``main`` returns. None is 0, or 1 where its output could not be written: then the output was what
    the command was given for. A reader that has gone (``| head``) has all that it wanted.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # of ``beginning``
        signal.signal(signal.SIGINT, signal.default_int_handler)
    outlast()
    status: Any
    try:
        status = main()
    except SystemExit as error:
        status = error.code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 128 + signal.SIGINT
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # so that Ctrl-C ends Python's shutdown without a traceback
    sys.stdout.flush()
    if (lost := _lost(sys.stdout)) is not None:
        print(f"standard output could not be written: {lost.strerror}", file=sys.stderr)
        status = 1 if status is None else status
    gc.freeze()  # Python's shutdown would look for cycles in all that a sweep holds, before the memory goes anyway
    sys.exit(status)


def columns(otherwise: int) -> int | None:
    """How wide a table may be that is printed: None where rich finds out, from the terminal or ``COLUMNS``.

    Some editors say 0 there, which rich would believe.
    """
    given = os.environ.get("COLUMNS", "")
    if given.isdigit() and not int(given):
        return shutil.get_terminal_size((otherwise, 1)).columns
    return None if sys.stdout.isatty() or given.isdigit() else otherwise


def beginning() -> None:
    """From now on until ``command``, Ctrl-C ends this process at once and silently: it has done nothing yet.

    For doors whose imports take long enough to be interrupted.
    """
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def outlast() -> None:
    """From now on, no write to this process's streams fails: what can't be written is dropped.

    Text that the locale can't write is escaped. Logging doesn't tell of what it couldn't log, nor W&B of itself.
    """
    logging.raiseExceptions = False
    os.environ.setdefault("WANDB_SILENT", "true")
    for number in range(3):
        _open(number)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)


def _open(number: int) -> None:
    """Open /dev/null where a standard descriptor is closed: else the next file, or socket, would get its number."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, number)  # also makes it inheritable
        if null != number:
            os.close(null)


class _Lasting(io.FileIO):
    """A descriptor that takes whatever is written to it. ``lost`` is why something was dropped."""

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # another process has made the terminal non-blocking
                select.select([], [self], [])
            return written
        except OSError as error:
            self.lost = error
            return memoryview(data).nbytes


def _lasting(stream: Any, number: int) -> Any:
    """The stream over a descriptor that lasts. One without a descriptor, such as a test's, stays as it is."""
    if stream is not None:
        try:
            number = stream.fileno()
        except OSError:
            return stream
        with contextlib.suppress(OSError):
            stream.flush()
    raw = io.BufferedWriter(_Lasting(number, "w", closefd=False))
    # By lines also into a file: so output and error come in their order, and a killed process has said all it did.
    return io.TextIOWrapper(raw, getattr(stream, "encoding", None), "fractal_ifs", line_buffering=True)


def _lost(stream: Any) -> OSError | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    lost = raw.lost if isinstance(raw, _Lasting) else None
    return None if lost is None or lost.errno in GONE else lost


def _escaped(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    sign = error.object[error.start]
    if (plain := PLAIN.get(sign)) is None:
        error.end = error.start + 1
        return codecs.backslashreplace_errors(error)  # pyright: ignore[reportReturnType]
    return plain, error.start + 1


codecs.register_error("fractal_ifs", _escaped)

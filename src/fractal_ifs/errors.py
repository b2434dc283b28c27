"""What goes wrong, and how it is told: in one line.

Of an exception, ``message`` tells its type and text, ``reason`` a few words that follow a file's name, ``of_system``
also the file. ``short`` shows a value. Errors of Hydra and OmegaConf are told by ``config.messages.one_line``.
"""

import contextlib
import sys
from collections.abc import Generator


class ConfigError(ValueError):
    """The user asked for something that can't be: one line that names the key, the value and what is allowed."""


class Refused(ConfigError):
    """A directory that is left exactly as it is, and what to do about it."""


class Damaged(Refused):
    """A file isn't as it was written, or never was one of ours."""


class FailedElsewhere(Exception):
    """How a run failed in another process: the message that it sent."""


def short(value: object, length: int = 60) -> str:
    """A value as it appears in a message: as the command line spells it, on one line, printable, not too long."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    text = " ".join(text[: 10 * length].split())
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return text if len(text) <= length else text[: length - 3] + "..."


def counted(number: int, noun: str) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def message(error: BaseException) -> str:
    """An exception in one line: ``OSError: [Errno 28] No space left on device``."""
    if isinstance(error, (FailedElsewhere, ConfigError)):
        return str(error)
    return (f"{type(error).__name__}: {error}".splitlines() or [""])[0]


def reason(error: BaseException) -> str:
    """Why a file can't be read or written, in a few words: ``Permission denied``, ``not a file``."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return short(words, 200)


def of_system(error: OSError) -> str:
    """An error of the operating system in one line: the file, and what is wrong."""
    names = [short(name, 100) for name in (error.filename, error.filename2) if name is not None]
    return f"{' and '.join(names)}: {reason(error)}" if names else short(error, 300)


@contextlib.contextmanager
def told() -> Generator[None]:
    """Within: what the user can mend ends the command with one line instead of a traceback."""
    try:
        yield
    except ConfigError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {of_system(error)}")

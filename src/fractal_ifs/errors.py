"""What goes wrong, and how it is told: in one line."""


class ConfigError(ValueError):
    """The user asked for something that can't be: one line that names the key, the value and what is allowed."""


class FailedElsewhere(Exception):
    """How a run failed in another process: the message that it sent."""


def short(value: object, length: int = 60) -> str:
    """A value as it appears in a message: on one line, not too long."""
    text = " ".join(str(value).split())
    return text if len(text) <= length else text[: length - 3] + "..."


def message(error: BaseException) -> str:
    """An exception in one line: ``OSError: [Errno 28] No space left on device``."""
    if isinstance(error, (FailedElsewhere, ConfigError)):
        return str(error)
    return (f"{type(error).__name__}: {error}".splitlines() or [""])[0]

"""Where the package's configs lie, and writing files whole or not at all: no reader sees half of one."""

import contextlib
import os
import uuid
from collections.abc import Generator
from pathlib import Path

CONF = Path(__file__).parent / "conf"


def write(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, replacing what is there. Raises OSError, and then the old file is as it was."""
    with written(path, content) as temporary:
        os.replace(temporary, path)


@contextlib.contextmanager
def written(path: Path, content: bytes) -> Generator[Path]:
    """Write ``content`` to a temporary file beside ``path``. The caller may rename it; otherwise it is removed.

    Its name is random: no other call has the same, in this thread or another, on this machine or another.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()

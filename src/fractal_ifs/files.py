"""Files that are written whole or not at all."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with written(path, content) as temporary:
        os.replace(temporary, path)


@contextlib.contextmanager
def written(path: Path, content: bytes) -> Iterator[Path]:
    """The content in a temporary file beside ``path``, which is gone in the end, whatever happens."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()

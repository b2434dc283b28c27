"""Where the package's configs lie, and files: written whole or not at all, so that no reader sees half of one.

Sweeps are copied between machines and people, so what stands in a file's place may be anything. Reading takes regular
files of a sensible size. Writing never goes through a link to a file that somebody else chose.
"""

import contextlib
import errno
import itertools
import os
import re
import stat
import uuid
from collections.abc import Collection, Generator
from pathlib import Path
from typing import Any, BinaryIO

from fractal_ifs.errors import ConfigError, reason

CONF = Path(__file__).parent / "conf"

LARGEST = 1 << 30  # bytes of a file that is read as a whole
LARGEST_CONFIG = 1 << 20  # of a user's own YAML
DEEPEST = 50  # lists and mappings of a YAML file within each other
# A file system that can't sync a directory, and a directory that may be written but not read.
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES)
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{32}")


def write(path: Path, content: bytes, durable: bool = True) -> None:
    """Write ``content`` to ``path``, replacing what is there. Raises OSError, and then the old file is as it was.

    ``durable``: once this returns, the file outlives a loss of power, where the directory can be synced. If the disk
    fails at that, which is an OSError too, the new file is there, and a loss of power may bring back the old one.
    Otherwise a loss of power may leave an older or empty file, but the disk isn't waited for.
    """
    with written(path, content, durable) as temporary:
        os.replace(temporary, path)
    if durable:
        sync(path.parent)


@contextlib.contextmanager
def written(path: Path, content: bytes, durable: bool = True) -> Generator[Path]:
    """Write ``content`` to a temporary file beside ``path``. The caller may rename it; otherwise it is removed.

    Its name is random: no other call has the same, in this thread or another, on this machine or another.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        yield temporary
    except OSError as error:
        unnamed = error.filename is None and error.errno is not None  # as where a disk is full
        if unnamed or str(error.filename) == str(temporary):
            raise OSError(error.errno, error.strerror, str(path)) from None  # nobody asked for the other
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sync(directory: Path) -> None:
    """Wait until the renames in a directory are on the disk, where it can be synced.

    Raises OSError where the disk fails: the renames are done, but a loss of power may undo them.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def remove_abandoned(directory: Path, names: Collection[str]) -> None:
    """Remove the temporary files that killed processes left of files with these names.

    Only for who alone may write these files now, because a lock says so.
    """
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if (match := _TEMPORARY.fullmatch(entry.name)) and match[1] in names:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def read(path: Path, most: int = LARGEST) -> bytes:
    """The content of a regular file of at most so many bytes. Raises OSError."""
    with opened(path, most) as file:
        return file.read()


def read_yaml(path: Path, loader: Any = None, most: int = LARGEST_CONFIG) -> str:
    """The text of a YAML file that may come from elsewhere. Parsing it takes no more time or space than its size.

    Args:
        loader: of PyYAML's loaders, the one that will parse it; by default ``SafeLoader``.

    Raises ConfigError, which names the file, where it is too large, too deep, or refers to its own parts, so that a few
    lines could stand for gigabytes; OSError, UnicodeDecodeError and yaml.YAMLError where nobody can read it.
    """
    import yaml

    try:
        text = read(path, most).decode()
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ConfigError(f"{path}: {reason(error)}") from None
        raise
    parse: Any = yaml.parse
    deep = 0
    for event in parse(text, loader or yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{path}: must be without references within YAML, *{event.anchor}")
        deep += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if deep > DEEPEST:
            raise ConfigError(f"{path}: must be at most {DEEPEST} lists and mappings deep")
    return text


@contextlib.contextmanager
def opened(path: Path, most: int = LARGEST) -> Generator[BinaryIO]:
    """Open a regular file of at most so many bytes for reading. Raises OSError, also for a pipe, which would wait.

    FileNotFoundError means that there is nothing at all, not even a link to nothing.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.ELOOP, "a link to nothing", str(path)) from None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"{found.st_size} bytes, at most {most} are expected", str(path))
        file = open(descriptor, "rb", closefd=False)  # noqa: SIM115 (closed with the descriptor)
        yield file
    finally:
        os.close(descriptor)


def opened_in_place(path: Path, flags: int) -> int:
    """Open a file that is written in place; it is made if there is none. Returns the descriptor.

    Raises OSError where a link, or no file, stands in its place: writing would change a file that somebody else chose.
    """
    flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return descriptor
    os.close(descriptor)
    raise OSError(errno.ELOOP, "a link, or not a file", str(path))


def append(path: Path, text: str) -> None:
    """Append to a text file. Raises OSError, also where a link stands in its place."""
    with open(opened_in_place(path, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8", errors="replace") as file:
        file.write(text)


def set_aside(path: Path) -> Path:
    """Rename what stands in a file's place and can't be used, so that a good file can be written. Returns where it is.

    Raises OSError.
    """
    names = (f"{path.name}.damaged{number or ''}" for number in itertools.count())
    aside = next(there for name in names if not os.path.lexists(there := path.with_name(name)))
    os.replace(path, aside)
    return aside

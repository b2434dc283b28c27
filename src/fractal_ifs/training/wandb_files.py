"""Which rows W&B's own files of a run hold: what its service process had not yet written is lost when it is killed.

A file is a log of records as LevelDB has them: blocks of 32 KiB, and in them pieces of records, each after 7 bytes that
are a checksum, a length, and whether it is a whole record, its first piece, one in the middle, or its last.
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from fractal_ifs.files import read

HEAD = b":W&B\xe1\xbe\x00"  # a file's first bytes; the last one is the format's version
BLOCK = 32768
WHOLE, FIRST, LAST = 1, 2, 4  # kinds of pieces; 3 is one in the middle

# As protobuf writes them: the begin of a record that is a row (its number, and then its field 2); and a row's item that
# holds its step (the item's name, and the step as text after its length).
ROW = re.compile(rb"\x08[\x80-\xff]*[\x00-\x7f]\x12", re.DOTALL)
STEP = re.compile(rb"[\x0a\x12]\x04step\x82\x01(.)", re.DOTALL)


def logged_steps(directory: Path, id: str, kind: str = "*") -> set[int] | None:
    """The steps of all rows of the W&B run ``id`` in the files below a run's directory.

    ``kind``: what stands before ``run-`` in the folders' names, such as ``offline-``; ``*``: anything. None where a
    file can't be read, or has a format that this can't read.
    """
    steps: set[int] = set()
    for path in directory.glob(f"wandb/{kind}run-*-{id}*/*.wandb"):
        try:
            content = read(path)
        except OSError:
            return None
        if content and not content.startswith(HEAD):
            return None
        for row in filter(ROW.match, _records(content)):
            if match := STEP.search(row):
                steps.add(int(row[match.end() : match.end() + match[1][0]]))
    return steps


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a file, without one that is torn."""
    record, place = b"", len(HEAD)
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:  # too little for another piece
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        place += 7
        if not WHOLE <= kind <= LAST or place + length > len(content):
            return
        record = content[place : place + length] if kind in (WHOLE, FIRST) else record + content[place : place + length]
        place += length
        if kind in (WHOLE, LAST):
            yield record

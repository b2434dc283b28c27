"""Small pictures of what the networks of a report's cells have learned, and galleries of these."""

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fractal_ifs.config.fractal import Fractal
from fractal_ifs.errors import ConfigError
from fractal_ifs.files import write
from fractal_ifs.fractals.membership import deepest
from fractal_ifs.plotting.style import BLUE, ORANGE, PALE_BLUE, PALE_ORANGE
from fractal_ifs.report.tables import FRACTALS, Table, tables
from fractal_ifs.results.cells import CellResult, Cells
from fractal_ifs.runs.load import load

if TYPE_CHECKING:
    import numpy as np
    import torch

PIXELS = 162  # per side: two for each cell of side 3^-4
COLOURS = (PALE_ORANGE, PALE_BLUE, ORANGE, BLUE)  # outside K_n, answer negative and positive; the same in K_n


def write_thumbnails(cells: Cells, directory: Path) -> dict[str, bytes]:
    """The picture of each cell's run, by the run's fingerprint.

    It shows a network of two inputs after its last step, over the fractal's square. A picture that is not in the
    directory yet is drawn, if the run's checkpoint is on this machine.

    Args:
        directory: a picture is its file FINGERPRINT.png.
    """
    found = {}
    for cell in cells.values():
        if cell.data != "fractal" or not cell.ended:
            continue
        path = directory / f"{cell.fingerprint}.png"
        if not path.exists():
            picture = thumbnail(Path(cell.directory)) if cell.directory else None
            if picture is None:
                continue
            directory.mkdir(parents=True, exist_ok=True)
            write(path, picture)
        found[cell.fingerprint] = path.read_bytes()
    return found


def thumbnail(directory: Path) -> bytes | None:
    """The decision regions of a run's network as a small PNG. None where it can't be read, or its d is not 2."""
    import torch

    try:
        run = load(directory)
    except (ConfigError, OSError):
        return None
    square = _square(run.config.fractal)
    if square is None:
        return None
    with torch.no_grad():
        outputs = run.model(square.x.to(next(run.model.parameters()).dtype))
    return _png((outputs > 0).reshape(square.inside.shape).numpy() + 2 * square.inside)


class Square(NamedTuple):
    """The square of a fractal in the plane, as pixels with the lowest row first."""

    x: "torch.Tensor"  # (PIXELS^2, 2): the pixels' centres
    inside: "np.ndarray"  # (PIXELS, PIXELS): whether a centre lies in K_n


@lru_cache(maxsize=16)
def _square(fractal: Fractal) -> Square | None:
    import numpy as np
    import torch

    ifs = fractal.ifs
    if ifs.d != 2:
        return None
    at = (np.arange(PIXELS) + 0.5) / PIXELS
    (x0, y0), (x1, y1) = ifs.base.lo, ifs.base.hi
    x = torch.tensor(np.stack(np.meshgrid(x0 + at * (x1 - x0), y0 + at * (y1 - y0)), -1).reshape(-1, 2))
    return Square(x, (deepest(ifs, x, fractal.depth) == fractal.depth).reshape(PIXELS, PIXELS).numpy())


def _png(values: "np.ndarray") -> bytes:
    """A picture of four colours, with two bits a pixel. ``values`` (h, w): 0 to 3, with the lowest row first."""
    import numpy as np
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(values[::-1]).astype("uint8"), "P")
    image.putpalette([channel for colour in COLOURS for channel in bytes.fromhex(colour[1:])])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", bits=2, optimize=True)
    return buffer.getvalue()


def write_galleries(ours: Cells, pictures: Mapping[str, bytes], directory: Path) -> list[Path]:
    """Write two sheets of pictures per fractal: depth x width on curve 1, and curve x width at depth 5.

    Args:
        pictures: as ``write_thumbnails`` returns them.

    Returns the files. A sheet without any picture is left out.
    """
    one, two, *_ = tables(ours)
    written: list[Path] = []
    for fractal, title in FRACTALS.items():
        for table, where in ((one, "curve 1"), (two, "depth 5")):
            grid = [[cell.result for cell in line] for line in table.blocks[fractal]]
            if any(cell and cell.fingerprint in pictures for line in grid for cell in line):
                path = directory / f"gallery_{fractal}_{table.row}.png"
                directory.mkdir(parents=True, exist_ok=True)
                write(path, _sheet(f"{title}, {where}", table, grid, pictures))
                written.append(path)
    return written


def _sheet(
    title: str, table: Table, grid: Sequence[Sequence[CellResult | None]], pictures: Mapping[str, bytes]
) -> bytes:
    """One sheet as PNG: the rows and columns of ``grid``, one of the table's blocks, that have a picture."""
    from PIL import Image, ImageDraw, ImageFont

    has = [[bool(cell and cell.fingerprint in pictures) for cell in line] for line in grid]
    shown = [j for j in range(len(table.widths)) if any(line[j] for line in has)]
    rows, grid = zip(
        *((value, line) for value, line, each in zip(table.rows, grid, has, strict=True) if any(each)), strict=True
    )
    gap, top, left, line = 6, 62, 66, PIXELS + 24
    font = ImageFont.load_default(13)
    head = f"{title}: after the last step of the best learning rate, its first seed"
    said = "blue: it says positive, orange: negative; strong: the fractal. Below: the cell's accuracy"
    shown_cells = [c for line in grid for c in line if c]
    marks = ["*: another budget"] * any(not c.whole for c in shown_cells)
    marks += ["#: another protocol"] * any(c.differs for c in shown_cells)
    said += f" ({', '.join(marks)})" if marks else ""
    wide = max(len(shown) * (PIXELS + gap), *(int(font.getlength(text)) + gap for text in (head, said)))
    sheet = Image.new("RGB", (left + wide, top + len(rows) * line), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((left, 6), head, "#222222", font)
    pen.text((left, 22), said, "#666", font)
    for j, column in enumerate(shown):
        width = f"width {table.widths[column]}"
        pen.text((left + j * (PIXELS + gap) + PIXELS / 2, top - 18), width, "#222", font, "ma")
        for i, cells in enumerate(grid):
            place = (left + j * (PIXELS + gap), top + i * line)
            cell = cells[column]
            if cell and (picture := pictures.get(cell.fingerprint)):
                sheet.paste(Image.open(io.BytesIO(picture)).convert("RGB"), place)
                mark = "*" * (not cell.whole) + "#" * bool(cell.differs)  # the font has no †
                accuracy = f"{cell.accuracy:.3f}{mark}"
                pen.text((place[0] + PIXELS / 2, place[1] + PIXELS + 2), accuracy, "#222", font, "ma")
            else:
                pen.rectangle((*place, place[0] + PIXELS, place[1] + PIXELS), outline="#ddd")
    for i, value in enumerate(rows):
        pen.text((6, top + i * line + PIXELS / 2), f"{table.row} {value}", "#222", font, anchor="lm")
    buffer = io.BytesIO()
    sheet.quantize(32).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()

"""What the networks of a report's cells have learned: a small picture each, and galleries of them."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractal_ifs.config.fractal import Fractal
from fractal_ifs.errors import ConfigError
from fractal_ifs.files import write
from fractal_ifs.fractals.membership import deepest
from fractal_ifs.report.tables import FRACTALS, lookup, paper
from fractal_ifs.runs.load import load

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

PIXELS = 162  # two for each cell of side 3^-4
# What plotting.pictures paints: outside K_n said to be negative, positive; in K_n said to be negative, positive.
COLOURS = ((0xFF, 0xD2, 0xA3), (0xA9, 0xCB, 0xE6), (0xFF, 0x7F, 0x0E), (0x1F, 0x77, 0xB4))


def draw(cells: "pd.DataFrame", directory: Path) -> dict[str, bytes]:
    """The picture of each cell's run, by fingerprint: ``directory/FINGERPRINT.png``, made where its checkpoint is here.

    A picture shows a network of two inputs after its last step, over the fractal's square.
    """
    found = {}
    for cell in cells.query("data == 'fractal' and ended").to_dict("records"):
        path = directory / f"{cell['fingerprint']}.png"
        if not path.exists():
            picture = thumbnail(Path(cell["directory"])) if isinstance(cell["directory"], str) else None
            if picture is None:
                continue
            directory.mkdir(parents=True, exist_ok=True)
            write(path, picture)
        found[cell["fingerprint"]] = path.read_bytes()
    return found


def thumbnail(directory: Path) -> bytes | None:
    """The decision regions of a run's network as a small PNG; None where it can't be read, or is not in the plane."""
    import torch

    try:
        run = load(directory)
    except (ConfigError, OSError):
        return None
    x, inside = _square(run.config.fractal)
    if x is None or inside is None:
        return None
    with torch.no_grad():
        positive = (run.model(x.to(next(run.model.parameters()).dtype)) > 0).reshape(inside.shape).numpy()
    return _png(positive + 2 * inside)


@lru_cache(maxsize=16)
def _square(fractal: Fractal) -> Any:
    """The pixels' centres (PIXELS^2, 2), the lowest row first, and which of them lie in K_n."""
    import numpy as np
    import torch

    ifs = fractal.ifs
    if ifs.d != 2:
        return None, None
    at = (np.arange(PIXELS) + 0.5) / PIXELS
    (x0, y0), (x1, y1) = ifs.base.lo, ifs.base.hi
    x = torch.tensor(np.stack(np.meshgrid(x0 + at * (x1 - x0), y0 + at * (y1 - y0)), -1).reshape(-1, 2))
    return x, (deepest(ifs, x, fractal.depth) == fractal.depth).reshape(PIXELS, PIXELS).numpy()


def _png(values: "np.ndarray") -> bytes:
    """Four colours, two bits a pixel; the first row of ``values`` is the lowest."""
    import numpy as np
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(values[::-1]).astype("uint8"), "P")
    image.putpalette([channel for colour in COLOURS for channel in colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", bits=2, optimize=True)
    return buffer.getvalue()


def galleries(cells: "pd.DataFrame", pictures: Mapping[str, bytes], directory: Path) -> list[Path]:
    """A sheet per fractal: depth x width on curve 1, and curve x width at depth 5."""
    ours, widths = lookup(cells), paper()["widths"]
    written = []
    for fractal, title in FRACTALS.items():
        sheets: list[tuple[str, str, Sequence[int], Callable]] = [
            ("depth", "curve 1", range(1, 6), lambda r, w, f=fractal: ("fractal", f, 5, "1", r, w)),
            ("curve", "depth 5", range(1, 7), lambda r, w, f=fractal: ("fractal", f, 5, str(r), 5, w)),
        ]
        for row, where, rows, key in sheets:
            grid = [[ours.get(key(r, w)) for w in widths] for r in rows]
            if any(cell and cell["fingerprint"] in pictures for line in grid for cell in line):
                path = directory / f"gallery_{fractal}_{row}.png"
                write(path, _sheet(f"{title}, {where}", row, rows, widths, grid, pictures))
                written.append(path)
    return written


def _sheet(
    title: str, row: str, rows: Sequence[int], widths: Sequence[int], grid: Sequence[Sequence[Any]], pictures: Mapping
) -> bytes:
    from PIL import Image, ImageDraw, ImageFont

    shown = [j for j in range(len(widths)) if any(line[j] and line[j]["fingerprint"] in pictures for line in grid)]
    gap, top, left, line = 6, 62, 66, PIXELS + 24
    sheet = Image.new("RGB", (left + len(shown) * (PIXELS + gap), top + len(rows) * line), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    pen.text((left, 6), f"{title}: after the last step of the best learning rate, seed 0", "#222222", font)
    said = "blue: it says positive, orange: negative; strong: the fractal. Below: the cell's accuracy"
    said += "" if all(c["whole"] for line in grid for c in line if c) else " (*: another budget)"
    pen.text((left, 22), said, "#666", font)
    for j, column in enumerate(shown):
        pen.text(
            (left + j * (PIXELS + gap) + PIXELS / 2, top - 18), f"width {widths[column]}", "#222", font, anchor="ma"
        )
        for i, cells in enumerate(grid):
            place = (left + j * (PIXELS + gap), top + i * line)
            cell = cells[column]
            if cell and (picture := pictures.get(cell["fingerprint"])):
                sheet.paste(Image.open(io.BytesIO(picture)).convert("RGB"), place)
                accuracy = f"{cell['accuracy']:.3f}" + "*" * (not cell["whole"])
                pen.text((place[0] + PIXELS / 2, place[1] + PIXELS + 2), accuracy, "#222", font, "ma")
            else:
                pen.rectangle((*place, place[0] + PIXELS, place[1] + PIXELS), outline="#ddd")
    for i, value in enumerate(rows):
        pen.text((6, top + i * line + PIXELS / 2), f"{row} {value}", "#222", font, anchor="lm")
    buffer = io.BytesIO()
    sheet.quantize(32).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()

"""The keys of pictures: how they look, whatever is drawn, and all those of conf/plot.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fractal_ifs.config.keys import A_SEED, Group, key, shown
from fractal_ifs.config.machine import is_path, obstacle
from fractal_ifs.errors import ConfigError
from fractal_ifs.plotting.style import FORMATS, LARGEST, Format, Output, check_letters

FARTHEST, NARROWEST = 1e6, 1e-9  # the edges of a window
A_WINDOW = "[x0,x1,y0,y1] with x0 < x1 and y0 < y1, numbers from -1e6 to 1e6"
A_SLICE = "a number from -1e6 to 1e6, or a list of these"
A_RUN = "the directory of a finished run"
A_DIRECTORY = "the path of a directory"


@dataclass(frozen=True, kw_only=True)
class Looks(Group):
    """How pictures look and are written."""

    formats: Format | tuple[Format, ...] = key("of the files", allowed=f"one or some of {', '.join(FORMATS)}")
    width: float | None = key(
        "of a picture in inches (a column of a paper has about 3.3); null: the picture's own", least=1, most=40
    )
    font: float | None = key("size of all letters in points; null: what the picture has", least=3, most=LARGEST)
    dpi: int = key("dots per inch of a PNG", least=20, most=1200)

    def check(self) -> None:
        """Raises ConfigError where a picture would be too narrow for its letters."""
        check_letters(self.output)

    @property
    def output(self) -> Output:
        """How pictures are written."""
        formats = (self.formats,) if isinstance(self.formats, str) else self.formats
        return Output(tuple(dict.fromkeys(formats)), self.width, self.font, self.dpi, colours=None)


@dataclass(frozen=True, kw_only=True)
class Plot(Looks):
    """The keys of conf/plot.yaml. ``fractal`` and ``curve`` are as they come: what reads them checks them."""

    fractal: Mapping[str, Any]
    curve: Mapping[str, Any]
    points: int = key("samples in a picture's panel", least=1, most=1_000_000)
    seed: int = key("seed of the samples", least=0, most=2**63 - 1, allowed=A_SEED)
    margin: float = key("gamma: positives lie in K_n^gamma")
    run: str | int | float | None = key("draw its network instead", allowed=A_RUN)
    window: tuple[float, ...] | None = key(
        "the part of the plane that is drawn ([x0,x1] for d = 1); null: K_0",
        least=-FARTHEST,
        most=FARTHEST,
        allowed=A_WINDOW,
    )
    slice: float | tuple[float, ...] | None = key(
        "for a run with d > 2: the values of x_3, ..., x_d; null: through the fractal",
        least=-FARTHEST,
        most=FARTHEST,
        allowed=A_SLICE,
    )
    pixels: int = key("of the decision regions, per side", least=10, most=4000)
    out: str | int | float = key("where pictures are written to", allowed=A_DIRECTORY)

    def check(self) -> None:
        """Raises ConfigError for a window without a part of the plane, and a directory that can't be written."""
        super().check()
        if (edges := self.window) is not None and (
            len(edges) not in (2, 4)
            or any(high - low < NARROWEST for low, high in zip(edges[::2], edges[1::2], strict=True))
        ):
            raise ConfigError(f"window=[{', '.join(f'{edge:.15g}' for edge in edges)}]: must be {A_WINDOW}, or null")
        if self.run is not None and not is_path(str(self.run)):
            raise ConfigError(f"run={shown(self.run)}: must be {A_RUN}, or null")
        if not is_path(str(self.out)):
            raise ConfigError(f"out={shown(self.out)}: must be {A_DIRECTORY}")
        if reason := obstacle(self.directory):
            raise ConfigError(f"out={shown(self.out)}: must be a directory that can be written, {reason}")

    @property
    def directory(self) -> Path:
        """Where pictures are written to."""
        return Path(str(self.out))

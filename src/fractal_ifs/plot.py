"""Pictures of fractal distributions and of what networks have learned of them.

python -m fractal_ifs.plot fractal=vicsek curve=1,4,6      K_0..K_n, samples, and P(j): Figures 1 to 3 of the paper
python -m fractal_ifs.plot run=DIR window=[0,1,0,1]        decision regions of a trained network, and its history

A list of curves (curve=1,4,6; curve=polynomial curve.degree=1,3,9) makes one picture; any other list, one each.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fractal_ifs.errors import ConfigError
from fractal_ifs.files import CONF
from fractal_ifs.fractals.named import names
from fractal_ifs.fractals.numbers import Floats, is_list, number, short, vector, whole
from fractal_ifs.streams import command

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from omegaconf import DictConfig

    from fractal_ifs.fractals.ifs import AffineIFS

FORMATS = ("png", "svg", "pdf")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: KEY=VALUE ..., with the keys of conf/plot.yaml."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if {"-h", "--help"} & set(arguments):
        print(_help())
        return
    try:
        for path in write_pictures(arguments):
            print(path)
    except ConfigError as error:
        sys.exit(f"error: {error}")


def write_pictures(overrides: Sequence[str]) -> list[Path]:
    """Draw what the overrides ask for, and return the files written.

    Everything is checked before the first picture is drawn. Raises ConfigError.
    """
    # Closed at once where a picture is refused: at a later time it would end the session of another Hydra.
    with contextlib.closing(_compose([_with_quotes(override) for override in overrides])) as composed:
        pictures = [_plan(configs) for configs in composed]
    written = []
    for settings, stem, draw in pictures:
        figure = draw()
        written += [_write(figure, settings.out / f"{stem}.{kind}", settings.dpi) for kind in settings.formats]
    return written


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys of conf/plot.yaml that say how to draw. What is drawn, ``fractal``, ``curve`` or ``run``, stays outside.

    ``vector`` and ``whole`` read the values: unlike a ``Group``, they also take 1e3 and fractions.
    """

    points: int
    seed: int
    pixels: int
    dpi: int
    window: Floats | None  # (4,) x0, x1, y0, y1, or (2,) x0, x1 for d = 1
    slice: Floats | None  # (d - 2,): x_3, ..., x_d
    formats: tuple[str, ...]
    out: Path

    @classmethod
    def parse(cls, config: DictConfig) -> Settings:
        """Read the keys of a composed config. Raises ConfigError, also where ``out`` can't be written."""
        formats = list(config.formats) if is_list(config.formats) else [config.formats]
        for name in formats:
            if name not in FORMATS:
                raise ConfigError(f"formats={short(formats)}: must be some of {', '.join(FORMATS)}")
        found = cls(
            points=whole(config.points, "points", 1, 1_000_000),
            seed=whole(config.seed, "seed", 0),
            pixels=whole(config.pixels, "pixels", 10, 4000),
            dpi=whole(config.dpi, "dpi", 20, 1200),
            slice=None if config.slice is None else vector(config.slice, "slice"),
            window=None if config.window is None else vector(config.window, "window"),
            formats=tuple(formats),
            out=Path(str(config.out)),
        )
        window = found.window
        if window is not None and (len(window) not in (2, 4) or (window[::2] >= window[1::2]).any()):
            raise ConfigError(f"window={short(config.window)}: must be [x0,x1,y0,y1] with x0 < x1 and y0 < y1")
        from fractal_ifs.config.machine import check_writable

        check_writable(found.out)
        return found


class Picture(NamedTuple):
    """A picture that was checked and can be drawn."""

    settings: Settings
    stem: str  # the file's name, without its suffix
    draw: Callable[[], Figure]


def _with_quotes(override: str) -> str:
    """Quote a directory as the shell completes it: the names of runs have characters that Hydra's grammar reads."""
    key, _, value = override.partition("=")
    plain = key not in ("run", "out") or value.startswith(("'", '"')) or "=" not in value
    return override if plain else f'{key}="{value}"'


def _compose(overrides: Sequence[str]) -> Generator[list[DictConfig]]:
    """The configs of each picture, which differ only in their curves. Raises ConfigError."""
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from fractal_ifs.config.messages import one_line
    from fractal_ifs.config.session import VERSION_BASE, borrowed

    overrides = list(_with_searchpath(overrides))
    with borrowed(), initialize_config_dir(str(CONF), **VERSION_BASE):
        try:
            parsed = OverridesParser.create().parse_overrides(overrides)
            curves, others = [], []  # for each override, the overrides of one value that it stands for
            for text, override in zip(overrides, parsed, strict=True):
                values = [text]
                if override.is_sweep_override():
                    values = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
                is_curve = override.key_or_group.split(".")[0] == "curve"
                (curves if is_curve else others).append(values)
            for fixed in product(*others):
                yield [compose("plot", overrides=[*fixed, *curve]) for curve in product(*curves)]
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(one_line(error)) from None


def _with_searchpath(arguments: Sequence[str]) -> Iterator[str]:
    """Turn Hydra's option --config-dir DIR into an override. Raises ConfigError for any other option."""
    rest = iter(arguments)
    for argument in rest:
        option, _, value = argument.partition("=")
        if option in ("--config-dir", "-cd"):
            directory = Path(value or next(rest, "")).absolute()
            if not directory.is_dir():
                raise ConfigError(f"{option}={directory}: must be a directory")
            yield f"hydra.searchpath=[file://{directory}]"
        elif argument.startswith("-"):
            raise ConfigError(f"{argument}: unknown option; allowed are --help, --config-dir DIR and KEY=VALUE")
        elif "=" not in argument and not argument.startswith("~"):
            raise ConfigError(f"{argument}: must be KEY=VALUE, such as fractal=vicsek")
        else:
            yield argument


def _plan(configs: Sequence[DictConfig]) -> Picture:
    """Check one picture, without the seconds that importing torch takes. Raises ConfigError."""
    settings, run = Settings.parse(configs[0]), configs[0].run
    return _plan_distributions(settings, configs) if run is None else _plan_network(settings, Path(str(run)))


def _plan_distributions(settings: Settings, configs: Sequence[DictConfig]) -> Picture:
    """One fractal, with a panel of samples for each curve."""
    from fractal_ifs.fractals.ifs import depth_of

    margin = number(configs[0].margin, "margin")
    laws = [_check_law(settings, config.fractal, config.curve, margin) for config in configs]
    ifs = laws[0][0]
    if ifs.d > 3:
        raise ConfigError(f"fractal.d={ifs.d}: must be at most 3 to be drawn")
    if ifs.d == 3 and settings.window is not None:
        raise ConfigError(f"window={settings.window.tolist()}: must be null for samples in d=3")

    def draw() -> Figure:
        from fractal_ifs.fractals.distribution import FractalDistribution
        from fractal_ifs.plotting.distributions import draw_distributions

        made = [FractalDistribution.from_config(config.fractal, config.curve, margin) for config in configs]
        return draw_distributions(made, settings.points, settings.seed, settings.window)

    name = f"{ifs.name}-n{depth_of(configs[0].fractal)}-curve{'_'.join(name for _, name in laws)}"
    return Picture(settings, _stem(name, settings.window), draw)


def _plan_network(settings: Settings, directory: Path) -> Picture:
    """What the network of a finished run has learned."""
    from fractal_ifs.runs.records import read_record

    record = read_record(directory)
    if record is None:
        raise ConfigError(f"run={directory}: must be the directory of a finished run, has no result.json")
    if not record.config.synthetic:
        raise ConfigError(f"run={directory}: must be a run on a fractal, its data is {record.data}")
    ifs, _ = _check_law(settings, record.config.fractal.keys, record.config.curve.keys, 0.0)
    at = settings.slice
    if at is not None and len(at) != ifs.d - 2:
        raise ConfigError(f"slice={at.tolist()}: must have {max(0, ifs.d - 2)} numbers for d={ifs.d}")

    def draw() -> Figure:
        from fractal_ifs.plotting.networks import draw_network
        from fractal_ifs.runs.load import load

        return draw_network(load(directory), settings.window, at, settings.pixels)

    keys = ("fractal", "fractal_depth", "curve", "depth", "width", "lr", "seed")
    name = "learned-{}-n{}-curve{}-depth{}-width{}-lr{:g}-seed{}".format(*(record[key] for key in keys))
    return Picture(settings, _stem(name, settings.window), draw)


def _check_law(settings: Settings, fractal: Any, curve: Any, margin: float) -> tuple[AffineIFS, str]:
    """The IFS and the curve's name. Raises ConfigError for a bad distribution, or a window that doesn't fit it."""
    from fractal_ifs.fractals.curve import ApproximationCurve
    from fractal_ifs.fractals.ifs import AffineIFS, depth_of

    ifs, depth = AffineIFS.from_config(fractal), depth_of(fractal)
    ifs.check(depth, margin)
    curve = ApproximationCurve.from_config(curve)
    curve.level_probabilities(depth)
    window = settings.window
    if window is not None and len(window) != min(4, 2 * ifs.d):
        raise ConfigError(f"window={window.tolist()}: must have {min(4, 2 * ifs.d)} numbers for d={ifs.d}")
    return ifs, curve.name


def _stem(name: str, window: Floats | None) -> str:
    """A file name of letters, digits and "._-"."""
    if window is not None:
        name += "-window" + "_".join(f"{edge:g}" for edge in window)
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)


def _write(figure: Figure, path: Path, dpi: int) -> Path:
    """Write a picture without a date and without random ids, so that the same picture always has the same bytes."""
    import matplotlib as mpl

    from fractal_ifs.files import write

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": path.stem}):
        date = {".svg": "Date", ".pdf": "CreationDate"}.get(path.suffix)
        figure.savefig(buffer, format=path.suffix[1:], dpi=dpi, metadata={date: None} if date else {})
    write(path, buffer.getvalue())
    return path


def _help() -> str:
    keys = (CONF / "plot.yaml").read_text().split("_self_\n", 1)[1].strip()
    return (
        f"{__doc__}\nfractal: {', '.join(names('fractal'))}\ncurve: {', '.join(names('curve'))}\n"
        f"Their keys are set as fractal.depth=6, curve.degree=3. Other keys, with their defaults:\n\n{keys}"
    )


if __name__ == "__main__":
    command(main)

"""``python -m fractal_ifs.plot KEY=VALUE ...``: fractal distributions, and what networks have learned of them."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fractal_ifs.errors import ConfigError, short, told
from fractal_ifs.extras import require
from fractal_ifs.files import CONF
from fractal_ifs.help.layout import asked, show
from fractal_ifs.help.options import options_and_words
from fractal_ifs.help.plot import screen
from fractal_ifs.plotting.style import FORMATS, LARGEST, Output, check_letters, write_figure
from fractal_ifs.streams import command

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from omegaconf import DictConfig

    from fractal_ifs.fractals.ifs import AffineIFS
    from fractal_ifs.fractals.numbers import Floats

OF_OUTPUT = ("formats", "width", "font", "dpi")  # the keys that ``Output`` holds
MOST_PICTURES = 1000
MOST_CURVES = 100  # of one picture
FARTHEST, NARROWEST = 1e6, 1e-9  # the edges of a window


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: KEY=VALUE ..., with the keys of conf/plot.yaml."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with told():
        if asked(arguments):
            return show(screen(arguments))
        options, _ = options_and_words(arguments)
        if "--version" in options:
            print(f"Hydra {version('hydra-core')}")  # as train and theory
        elif any(option.startswith("--cfg=") for option in options):
            show(configs(arguments))
        else:
            for path in write_pictures(arguments):
                print(path)


def configs(arguments: Sequence[str]) -> str:
    """The composed configs, as YAML: one for each panel of each picture. Raises ConfigError."""
    from omegaconf import OmegaConf

    with contextlib.closing(_compose(arguments)) as composed:
        return "---\n".join(OmegaConf.to_yaml(config) for configs in composed for config in configs).rstrip()


def write_pictures(overrides: Sequence[str]) -> list[Path]:
    """Draw what the overrides ask for, and return the files written.

    Everything is checked before the first picture is drawn. Raises ConfigError.
    """
    require("plot")
    # Closed at once where a picture is refused: at a later time it would end the session of another Hydra.
    with contextlib.closing(_compose(overrides)) as composed:
        pictures = [_plan(configs) for configs in composed]
    files = [settings.out / stem for settings, stem, _ in pictures]
    if len(set(files)) < len(files):
        twice = next(path for path in files if files.count(path) > 1)
        raise ConfigError(
            f"{twice}: would be the name of several pictures; draw them apart, each with an out of its own"
        )
    from fractal_ifs.config.machine import check_writable

    written = []
    for settings, stem, draw in pictures:
        figure = draw()
        check_writable(settings.out)
        write_figure(figure, settings.out, stem, settings.output)
        written += [settings.out / f"{stem}.{kind}" for kind in settings.output.formats]
    return written


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys of conf/plot.yaml that say how to draw. What is drawn, ``fractal``, ``curve`` or ``run``, stays outside.

    ``vector`` and ``whole`` read the values: unlike a ``Group``, they also take 1e3 and fractions.
    """

    points: int
    seed: int
    pixels: int
    window: Floats | None  # (4,) x0, x1, y0, y1, or (2,) x0, x1 for d = 1
    slice: Floats | None  # (d - 2,): x_3, ..., x_d
    output: Output
    out: Path
    margin: float  # gamma: positives lie in K_n^gamma

    @classmethod
    def parse(cls, config: DictConfig) -> Settings:
        """Read the keys of a composed config. Raises ConfigError, also where ``out`` can't be written."""
        from fractal_ifs.config.machine import is_path, obstacle
        from fractal_ifs.fractals.numbers import is_list, number, vector, whole

        formats = list(config.formats) if is_list(config.formats) else [config.formats]
        if not formats or len(set(map(str, formats))) < len(formats) or not set(map(str, formats)) <= {*FORMATS}:
            raise ConfigError(f"formats={short(config.formats)}: must be one or some of {', '.join(FORMATS)}")
        if not isinstance(config.out, str | int | float) or not is_path(str(config.out)):
            raise ConfigError(f"out={short(config.out)}: must be the path of a directory")
        if reason := obstacle(Path(str(config.out))):
            raise ConfigError(f"out={short(config.out)}: must be a directory that can be written, {reason}")
        found = cls(
            points=whole(config.points, "points", 1, 1_000_000),
            seed=whole(config.seed, "seed", 0, 2**63 - 1),
            pixels=whole(config.pixels, "pixels", 10, 4000),
            slice=None if config.slice is None else vector(config.slice, "slice"),
            window=None if config.window is None else vector(config.window, "window"),
            output=Output(
                formats=tuple(formats),
                width=None if config.width is None else _between(config.width, "width", 1, 40),
                font=None if config.font is None else _between(config.font, "font", 3, LARGEST),
                dpi=whole(config.dpi, "dpi", 20, 1200),
                colours=None,
            ),
            out=Path(str(config.out)),
            margin=number(config.margin, "margin"),
        )
        for name, values in (("window", found.window), ("slice", found.slice)):
            if values is not None and (abs(values) > FARTHEST).any():
                raise ConfigError(f"{name}={short(config[name])}: must be numbers from -1e6 to 1e6")
        check_letters(found.output)
        window = found.window
        if window is not None and (len(window) not in (2, 4) or (window[1::2] - window[::2] < NARROWEST).any()):
            raise ConfigError(f"window={short(config.window)}: must be [x0,x1,y0,y1] with x0 < x1 and y0 < y1")
        return found


def _between(value: object, key: str, least: float, most: float) -> float:
    from fractal_ifs.fractals.numbers import number

    found = number(value, key)
    if not least <= found <= most:
        raise ConfigError(f"{key}={short(value)}: must be null or from {least:g} to {most:g}")
    return found


class Picture(NamedTuple):
    """A picture that was checked and can be drawn."""

    settings: Settings
    stem: str  # the file's name, without its suffix
    draw: Callable[[], Figure]


def _compose(arguments: Sequence[str]) -> Generator[list[DictConfig]]:
    """The configs of each picture, which differ only in their curves. Raises ConfigError."""
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    from fractal_ifs.config.compose import check_own
    from fractal_ifs.config.messages import one_line
    from fractal_ifs.config.overrides import check_overrides
    from fractal_ifs.config.session import VERSION_BASE, borrowed

    arguments = _checked(arguments)
    with borrowed(), initialize_config_dir(str(CONF), **VERSION_BASE):
        check_overrides(arguments)
        overrides = _with_searchpath(arguments)
        check_own(overrides)
        try:
            parsed = OverridesParser.create().parse_overrides(overrides)
            curves, others = [], []  # for each override, the overrides of one value that it stands for
            for text, override in zip(overrides, parsed, strict=True):
                values = [text]
                if override.is_interval_sweep():
                    raise ConfigError(f"{short(text)}: must be separate values, as 1,2")
                if override.is_sweep_override():
                    values = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
                is_curve = override.key_or_group.split(".")[0] == "curve"
                (curves if is_curve else others).append(values)
            if (most := prod(map(len, curves))) > MOST_CURVES:
                raise ConfigError(f"curve: must be at most {MOST_CURVES} curves in a picture, not {most}")
            if (most := prod(map(len, others))) > MOST_PICTURES:
                raise ConfigError(f"{short(' '.join(overrides))}: must be at most {MOST_PICTURES} pictures, not {most}")
            for fixed in product(*others):
                configs = [compose("plot", overrides=[*fixed, *curve]) for curve in product(*curves)]
                for config in configs:
                    _check_keys(config)
                    OmegaConf.resolve(config)  # here, where an error of it is told in one line
                    if missing := [key for key in config if OmegaConf.is_missing(config, key)]:
                        raise ConfigError(f"{missing[0]}=???: this key has no default, give it a value")
                yield configs
        except Exception as error:
            raise (error if isinstance(error, ConfigError) else ConfigError(one_line(error, overrides))) from None


def _check_keys(config: DictConfig) -> None:
    """Raises ConfigError for a key that was added with +, and for one that was deleted with ~."""
    from omegaconf import OmegaConf

    from fractal_ifs.config.keys import check_names

    keys: Any = OmegaConf.to_container(config)
    names = ("fractal", "curve", "run", *OF_OUTPUT, *(f.name for f in fields(Settings) if f.name != "output"))
    check_names(keys, names)
    if missing := [name for name in names if name not in keys]:
        raise ConfigError(f"{missing[0]}: must be given")


def _checked(arguments: Sequence[str]) -> list[str]:
    """The arguments with options in their long form. Raises ConfigError for an option that isn't taken here."""
    options, words = options_and_words(arguments)
    for option in options:
        name, _, value = option.partition("=")
        if name == "--cfg" and value != "job":
            raise ConfigError(f"--cfg {short(value)}: must be --cfg job")
        if name == "--multirun":
            raise ConfigError(f"{name}: is for sweeps; here a list of values makes the pictures of all of them")
        if name not in ("--cfg", "--config-dir"):
            raise ConfigError(f"{name}: there is no such option here; --help shows those that there are")
    for word in words:
        if "=" not in word and not word.startswith("~"):
            raise ConfigError(f"{short(word)}: must be KEY=VALUE, such as fractal=vicsek")
    return [*options, *words]


def _with_searchpath(arguments: Sequence[str]) -> list[str]:
    """The overrides, with all directories that the arguments name in one: of several Hydra would take the first."""
    from fractal_ifs.config.command import own_places, split
    from fractal_ifs.config.words import quoted

    places = [place if "://" in place else f"file://{Path(place).absolute()}" for place in own_places(arguments)]
    words = [word for word in split(arguments)[1] if not (places and re.match(r"\W*hydra\.searchpath=", word))]
    return [*words, *([f"hydra.searchpath=[{','.join(map(quoted, places))}]"] if places else [])]


def _plan(configs: Sequence[DictConfig]) -> Picture:
    """Check one picture, without the seconds that importing torch takes. Raises ConfigError."""
    from fractal_ifs.config.machine import is_path

    settings, run = Settings.parse(configs[0]), configs[0].run
    if run is None:
        return _plan_distributions(settings, configs)
    if not isinstance(run, str | int | float) or isinstance(run, bool) or not is_path(str(run)):
        raise ConfigError(f"run={short(run)}: must be the directory of a finished run")
    return _plan_network(settings, Path(str(run)))


def _plan_distributions(settings: Settings, configs: Sequence[DictConfig]) -> Picture:
    """One fractal, with a panel of samples for each curve."""
    from fractal_ifs.fractals.ifs import depth_of

    laws = [_check_law(settings, config.fractal, config.curve, settings.margin) for config in configs]
    ifs = laws[0][0]
    if ifs.d > 3:
        raise ConfigError(f"fractal.d={ifs.d}: must be at most 3 to be drawn")
    if ifs.d == 3 and settings.window is not None:
        raise ConfigError(f"window={settings.window.tolist()}: must be null for samples in d=3")

    def draw() -> Figure:
        from fractal_ifs.fractals.distribution import FractalDistribution
        from fractal_ifs.plotting.distributions import draw_distributions

        made = [FractalDistribution.from_config(config.fractal, config.curve, settings.margin) for config in configs]
        return draw_distributions(made, settings.points, settings.seed, settings.window, settings.output)

    name = f"{ifs.name}-n{depth_of(configs[0].fractal)}-curve{'_'.join(name for _, name in laws)}"
    return Picture(settings, _stem(name, settings.window), draw)


def _plan_network(settings: Settings, directory: Path) -> Picture:
    """What the network of a finished run has learned."""
    from fractal_ifs.runs.records import read_stored, what_is_there

    try:
        record = read_stored(directory).record
    except FileNotFoundError:
        raise ConfigError(f"run={directory}: {what_is_there(directory)}") from None
    except ConfigError as error:
        raise ConfigError(f"run={directory}: {error}") from None
    if not record.config.synthetic:
        raise ConfigError(f"run={directory}: must be a run on a fractal, its data is {record.data}")
    ifs, _ = _check_law(settings, record.config.fractal.keys, record.config.curve.keys, 0.0)
    at = settings.slice
    if at is not None and len(at) != ifs.d - 2:
        raise ConfigError(f"slice={at.tolist()}: must have {max(0, ifs.d - 2)} numbers for d={ifs.d}")

    def draw() -> Figure:
        from fractal_ifs.plotting.networks import draw_network
        from fractal_ifs.runs.load import load

        return draw_network(load(directory), settings.window, at, settings.pixels, settings.output)

    keys = ("fractal", "fractal_depth", "curve", "depth", "width", "lr", "seed")
    name = "learned-{}-n{}-curve{}-depth{}-width{}-lr{:g}-seed{}".format(*(record[key] for key in keys))
    name += f"-{record['fingerprint'][:8]}"  # tells runs apart that differ in any other key
    name += "" if record["model"] == "mlp" else f"-{record['model']}"
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
    stem = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)
    if len(stem.encode()) <= 200:
        return stem
    return stem.encode()[:180].decode(errors="ignore") + "-" + hashlib.sha256(stem.encode()).hexdigest()[:12]


if __name__ == "__main__":
    command(main)

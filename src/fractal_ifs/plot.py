"""``python -m fractal_ifs.plot KEY=VALUE ...``: fractal distributions, and what networks have learned of them."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import fields
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
from fractal_ifs.plotting.keys import Plot
from fractal_ifs.plotting.style import write_figure
from fractal_ifs.streams import command

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from omegaconf import DictConfig

    from fractal_ifs.fractals.ifs import AffineIFS
    from fractal_ifs.fractals.numbers import Floats

MOST_PICTURES = 1000
MOST_CURVES = 100  # of one picture


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
    files = [settings.directory / stem for settings, stem, _ in pictures]
    if len(set(files)) < len(files):
        twice = next(path for path in files if files.count(path) > 1)
        raise ConfigError(
            f"{twice}: would be the name of several pictures; draw them apart, each with an out of its own"
        )
    from fractal_ifs.config.machine import check_writable

    written = []
    for settings, stem, draw in pictures:
        figure = draw()
        check_writable(settings.directory)
        write_figure(figure, settings.directory, stem, settings.output)
        written += [settings.directory / f"{stem}.{kind}" for kind in settings.output.formats]
    return written


class Picture(NamedTuple):
    """A picture that was checked and can be drawn."""

    settings: Plot
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
                    _check_used(config.run is not None, overrides)
                yield configs
        except Exception as error:
            raise (error if isinstance(error, ConfigError) else ConfigError(one_line(error, overrides))) from None


def _check_used(of_run: bool, words: Sequence[str]) -> None:
    """Raises ConfigError for a word that goes with nothing: of samples beside a run, and of a run without one."""
    of_samples = ("fractal", "curve", "margin", "points", "seed")
    for word in words:
        key = re.split(r"[=.@]", word.lstrip("+~"))[0]
        if of_run and key in of_samples:
            raise ConfigError(f"{short(word)}: can't stand beside run=DIR, whose picture is of that run's network")
        if not of_run and key in ("slice", "pixels"):
            raise ConfigError(f"{short(word)}: must stand beside run=DIR, of whose network it is")


def _check_keys(config: DictConfig) -> None:
    """Raises ConfigError for a key that was added with +, and for one that was deleted with ~."""
    from omegaconf import OmegaConf

    from fractal_ifs.config.keys import check_names

    keys: Any = OmegaConf.to_container(config)
    names = [field.name for field in fields(Plot)]
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
    from omegaconf import OmegaConf

    contents: list[Any] = [OmegaConf.to_container(config) for config in configs]
    settings, *others = [Plot.parse(keys) for keys in contents]
    if settings.run is None:
        return _plan_distributions(settings, others)
    return _plan_network(settings, Path(str(settings.run)))


def _plan_distributions(settings: Plot, others: Sequence[Plot]) -> Picture:
    """One fractal, with a panel of samples for each curve. ``others``: the same keys with the other curves."""
    from fractal_ifs.fractals.ifs import depth_of

    panels = [(each.fractal, each.curve) for each in (settings, *others)]
    window, margin = _array("window", settings.window), settings.margin
    laws = [_check_law(window, *panel, margin) for panel in panels]
    ifs = laws[0][0]
    if ifs.d > 3:
        raise ConfigError(f"fractal.d={ifs.d}: must be at most 3 to be drawn")
    if ifs.d == 3 and window is not None:
        raise ConfigError(f"window={window.tolist()}: must be null for samples in d=3")

    def draw() -> Figure:
        from fractal_ifs.fractals.distribution import FractalDistribution
        from fractal_ifs.plotting.distributions import draw_distributions

        made = [FractalDistribution(*panel, margin=margin) for panel in panels]
        return draw_distributions(made, settings.points, settings.seed, window, settings.output)

    name = f"{ifs.name}-n{depth_of(settings.fractal)}-curve{'_'.join(name for _, name in laws)}"
    return Picture(settings, _stem(name, window), draw)


def _plan_network(settings: Plot, directory: Path) -> Picture:
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
    window, at = _array("window", settings.window), _array("slice", settings.slice)
    ifs, _ = _check_law(window, record.config.fractal.keys, record.config.curve.keys, 0.0)
    if at is not None and len(at) != ifs.d - 2:
        raise ConfigError(f"slice={at.tolist()}: must have {max(0, ifs.d - 2)} numbers for d={ifs.d}")

    def draw() -> Figure:
        from fractal_ifs.plotting.networks import draw_network
        from fractal_ifs.runs.load import load

        return draw_network(load(directory), window, at, settings.pixels, settings.output)

    keys = ("fractal", "fractal_depth", "curve", "depth", "width", "lr", "seed")
    name = "learned-{}-n{}-curve{}-depth{}-width{}-lr{:g}-seed{}".format(*(record[key] for key in keys))
    name += f"-{record['fingerprint'][:8]}"  # tells runs apart that differ in any other key
    name += "" if record["model"] == "mlp" else f"-{record['model']}"
    return Picture(settings, _stem(name, window), draw)


def _array(key: str, numbers: float | Sequence[float] | None) -> Floats | None:
    from fractal_ifs.fractals.numbers import vector

    return None if numbers is None else vector(numbers, key)


def _check_law(window: Floats | None, fractal: Any, curve: Any, margin: float) -> tuple[AffineIFS, str]:
    """The IFS and the curve's name. Raises ConfigError for a bad distribution, or a window that doesn't fit it."""
    from fractal_ifs.fractals.curve import ApproximationCurve
    from fractal_ifs.fractals.ifs import AffineIFS, depth_of

    ifs, depth = AffineIFS.from_config(fractal), depth_of(fractal)
    ifs.check(depth, margin)
    curve = ApproximationCurve.from_config(curve)
    curve.level_probabilities(depth)
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

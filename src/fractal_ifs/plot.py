"""Pictures of fractal distributions and of what networks have learned of them.

python -m fractal_ifs.plot fractal=vicsek curve=1,4,6      K_0..K_n, samples, and P(j): Figures 1 to 3 of the paper
python -m fractal_ifs.plot run=DIR window=[0,1,0,1]        decision regions of a trained network, and its history

A list of curves (curve=1,4,6; curve=polynomial curve.degree=1,3,9) makes one picture; any other list, one each.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractal_ifs.errors import ConfigError
from fractal_ifs.files import CONF
from fractal_ifs.fractals.named import names
from fractal_ifs.fractals.numbers import is_list, number, short, vector, whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from omegaconf import DictConfig

    from fractal_ifs.fractals.ifs import AffineIFS

Picture = Callable[[], "Figure"]
FORMATS = ("png", "svg", "pdf")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: KEY=VALUE ..., with the keys of conf/plot.yaml."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if {"-h", "--help"} & set(arguments):
        print(_help())
        return
    try:
        for path in draw(arguments):
            print(path)
    except ConfigError as error:
        sys.exit(f"error: {error}")


def draw(overrides: Sequence[str]) -> list[Path]:
    """Draw what the overrides ask for; returns the files written. Everything is checked before the first is drawn."""
    planned: list[tuple[dict[str, Any], str, Picture]] = []
    for configs in _compose([_as_typed(override) for override in overrides]):
        settings = _check(configs[0])
        run = configs[0].run
        name, picture = _distributions(settings, configs) if run is None else _run(settings, Path(str(run)))
        planned.append((settings, _stem(name, settings["window"]), picture))
    written = []
    for settings, stem, picture in planned:
        figure = picture()
        written += [_write(figure, settings["out"] / f"{stem}.{kind}", settings["dpi"]) for kind in settings["formats"]]
    return written


def _as_typed(override: str) -> str:
    """A directory as the shell completes it: runs' names have signs that Hydra's grammar would read."""
    key, _, value = override.partition("=")
    plain = key not in ("run", "out") or value.startswith(("'", '"')) or "=" not in value
    return override if plain else f'{key}="{value}"'


def _compose(overrides: Sequence[str]) -> Iterator[list[DictConfig]]:
    """A list of configs for every picture: they differ in their curves alone."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from fractal_ifs.config.compose import register
    from fractal_ifs.config.messages import one_line

    register()
    overrides = list(_with_searchpath(overrides))
    GlobalHydra.instance().clear()
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        curves, others = [], []  # for each override, the values to go through
        for text, override in zip(overrides, parsed, strict=True):
            values = [text]
            if override.is_sweep_override():
                values = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
            is_curve = override.key_or_group.split(".")[0] == "curve"
            (curves if is_curve else others).append(values)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            for fixed in product(*others):
                yield [compose("plot", overrides=[*fixed, *curve]) for curve in product(*curves)]
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error)) from None


def _with_searchpath(arguments: Sequence[str]) -> Iterator[str]:
    """Hydra's --config-dir DIR, as an override; any other option is refused."""
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


def _check(config: DictConfig) -> dict[str, Any]:
    """The settings of a picture, apart from what it shows."""
    formats = list(config.formats) if is_list(config.formats) else [config.formats]
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"formats={short(formats)}: must be some of {', '.join(FORMATS)}")
    settings = {
        "points": whole(config.points, "points", 1, 1_000_000),
        "seed": whole(config.seed, "seed", 0),
        "pixels": whole(config.pixels, "pixels", 10, 4000),
        "dpi": whole(config.dpi, "dpi", 20, 1200),
        "window": None,
        "slice": None if config.slice is None else vector(config.slice, "slice"),
        "formats": formats,
        "out": Path(str(config.out)),
    }
    if config.window is not None:
        window = settings["window"] = vector(config.window, "window")
        if len(window) not in (2, 4) or (window[::2] >= window[1::2]).any():
            raise ConfigError(f"window={short(config.window)}: must be [x0,x1,y0,y1] with x0 < x1 and y0 < y1")
    from fractal_ifs.config.machine import check_writable

    check_writable(settings["out"])
    return settings


def _check_law(settings: dict[str, Any], fractal: Any, curve: Any, margin: float) -> tuple[AffineIFS, str]:
    """Refuse a bad distribution, or a window that doesn't fit it, without the seconds that importing torch takes."""
    from fractal_ifs.fractals.curve import ApproximationCurve
    from fractal_ifs.fractals.ifs import AffineIFS, depth_of

    ifs, depth = AffineIFS.from_config(fractal), depth_of(fractal)
    ifs.check(depth, margin)
    curve = ApproximationCurve.from_config(curve)
    curve.level_probabilities(depth)
    window = settings["window"]
    if window is not None and len(window) != min(4, 2 * ifs.d):
        raise ConfigError(f"window={window.tolist()}: must have {min(4, 2 * ifs.d)} numbers for d={ifs.d}")
    return ifs, curve.name


def _distributions(settings: dict[str, Any], configs: Sequence[DictConfig]) -> tuple[str, Picture]:
    """The name of the picture's file, and how to draw it: one fractal, a panel for each curve."""
    from fractal_ifs.fractals.ifs import depth_of

    margin = number(configs[0].margin, "margin")
    laws = [_check_law(settings, config.fractal, config.curve, margin) for config in configs]
    ifs = laws[0][0]
    if ifs.d > 3:
        raise ConfigError(f"fractal.d={ifs.d}: must be at most 3 to be drawn")
    if ifs.d == 3 and settings["window"] is not None:
        raise ConfigError(f"window={settings['window'].tolist()}: must be null for samples in d=3")

    def picture() -> Figure:
        from fractal_ifs.fractals.distribution import FractalDistribution
        from fractal_ifs.plotting import pictures

        drawn = [FractalDistribution.from_config(config.fractal, config.curve, margin) for config in configs]
        return pictures.distributions(drawn, settings["points"], settings["seed"], settings["window"])

    return f"{ifs.name}-n{depth_of(configs[0].fractal)}-curve{'_'.join(name for _, name in laws)}", picture


def _run(settings: dict[str, Any], directory: Path) -> tuple[str, Picture]:
    """The name of the picture's file, and how to draw it: what the network of a finished run has learned."""
    from fractal_ifs.runs.records import read_record

    record = read_record(directory)
    if record is None:
        raise ConfigError(f"run={directory}: must be the directory of a finished run, has no result.json")
    if not record.config.synthetic:
        raise ConfigError(f"run={directory}: must be a run on a fractal, its data is {record.data}")
    ifs, _ = _check_law(settings, record.config.fractal.keys, record.config.curve.keys, 0.0)
    at = settings["slice"]
    if at is not None and len(at) != ifs.d - 2:
        raise ConfigError(f"slice={at.tolist()}: must have {max(0, ifs.d - 2)} numbers for d={ifs.d}")

    def picture() -> Figure:
        from fractal_ifs.plotting import pictures
        from fractal_ifs.runs.load import load

        return pictures.network(load(directory), settings["window"], at, settings["pixels"])

    keys = ("fractal", "fractal_depth", "curve", "depth", "width", "lr", "seed")
    name = "learned-{}-n{}-curve{}-depth{}-width{}-lr{:g}-seed{}".format(*(record[key] for key in keys))
    return name, picture


def _stem(name: str, window: Sequence[float] | None) -> str:
    if window is not None:
        name += "-window" + "_".join(f"{edge:g}" for edge in window)
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)


def _write(figure: Figure, path: Path, dpi: int) -> Path:
    """The same picture gives the same bytes: no date, no random ids."""
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
    main()

"""``python -m fractal_ifs.theory [all|theorem1|...|corollary3] KEY=VALUE ...``: the paper's statements, each one run.

Prints a table (statement, setting, bound, measured, holds), writes theory.json and a picture per statement into the
run's directory. The exit status is 1 where a statement does not hold, or where the input is outside its hypotheses.
"""

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fractal_ifs.config.compose import CONF
from fractal_ifs.config.machine import check_writable
from fractal_ifs.config.messages import refusals
from fractal_ifs.errors import ConfigError

STATEMENTS = (
    "theorem1",
    "corollary1",
    "theorem2",
    "theorem3",
    "theorem4",
    "theorem5",
    "corollary2",
    "corollary3",
)
EXPERIMENTS = ("conjecture1",)  # not in `all`: they take as long as they are told
ON_THE_CANTOR_SET = ("theorem5", "corollary2", "corollary3")
OPTIONS_WITH_VALUE = (
    "--config-dir",
    "-cd",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--cfg",
    "-c",
    "--package",
    "-p",
)
FORMAT = 1

failed: list[str] = []  # what was refused or did not hold in this process, one line each


@hydra.main(config_path=str(CONF), config_name="theory", version_base="1.3")
def run(config: DictConfig) -> int | None:
    """One set of statements: returns the number of checks that don't hold, None where the input is refused.

    A refusal is told at the end: the other jobs of a sweep still run.
    """
    try:
        return _run(config, Path(HydraConfig.get().runtime.output_dir))
    except ConfigError as error:
        failed.append(f"error: {error}")
        return None


def _run(config: DictConfig, directory: Path) -> int:
    check_writable(directory)
    import torch

    keys: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # pyright: ignore[reportAssignmentType]
    torch.set_num_threads(_whole(keys, "threads"))
    begin = time.perf_counter()
    names = _names(keys["statement"])
    checks, seconds = [], {}
    for name in names:
        start = time.perf_counter()
        problem = _problem(name, keys, alone=len(names) == 1)
        module = import_module(f"fractal_ifs.theorems.{name}")
        found = module.check(problem)
        if keys["figures"] and hasattr(module, "draw"):
            _draw(module, found if name in EXPERIMENTS else problem, directory / f"{name}.png")
        seconds[name] = round(time.perf_counter() - start, 2)
        checks += found
        _show(found, f"{name}, {seconds[name]:.1f} s")
    _write(directory / "theory.json", keys, checks, seconds)
    wrong = [check.statement for check in checks if check.holds is False]
    failed.extend(f"error: does not hold: {statement}" for statement in dict.fromkeys(wrong))
    print(f"{len(checks)} checks in {time.perf_counter() - begin:.0f} s, {len(wrong)} don't hold: {directory}")
    return len(wrong)


def _names(statement: Any) -> list[str]:
    names = [statement] if isinstance(statement, str) else list(statement)
    for name in names:
        if name not in ("all", *STATEMENTS, *EXPERIMENTS):
            raise ConfigError(f"statement={name}: must be all or one of {', '.join(STATEMENTS + EXPERIMENTS)}")
    return list(STATEMENTS) if "all" in names else names


def _whole(keys: dict[str, Any], key: str, least: int = 1) -> int:
    value = keys[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{key}={value}: must be a whole number >= {least}")
    return value


def _problem(name: str, keys: dict[str, Any], alone: bool):
    """What `name` is checked on: the chosen fractal, or the Cantor set where the statement is about the line alone."""
    from fractal_ifs.fractals.curve import ApproximationCurve
    from fractal_ifs.fractals.ifs import AffineIFS
    from fractal_ifs.fractals.numbers import number, whole
    from fractal_ifs.theorems.cube import CubeIFS
    from fractal_ifs.theorems.fold import CANTOR
    from fractal_ifs.theorems.problem import Problem

    settings = dict(keys.get(name) or {})
    fractal = dict(keys["fractal"])
    n = whole(fractal.pop("depth", 5), "fractal.depth", 1)
    ifs = CubeIFS.of(AffineIFS.from_config(fractal)).shrunk(number(keys["shrink"], "shrink"))
    curve = ApproximationCurve.from_config(keys["curve"])
    gamma = keys["margin"]
    if gamma is not None:
        gamma = number(gamma, "margin")
    if name in ON_THE_CANTOR_SET or (name == "theorem4" and ifs.d > 1 and not alone):
        ifs, gamma = CANTOR, None
    if name == "theorem4" or name in ON_THE_CANTOR_SET:
        n, gamma = whole(settings.get("n", n), f"{name}.n", 1), None
        if not _fits(curve, n):  # a curve given level by level, for another depth
            curve = ApproximationCurve.load(str(settings["curves"][0]))
    points = whole(settings.get("points", keys["points"]), "points", 1)
    seed = _whole(keys, "seed", 0)
    if name in ON_THE_CANTOR_SET or name in EXPERIMENTS:
        return Problem(ifs, n, 0.0, curve, points, seed, settings, _trainer())
    ifs.require_separated()
    curve.level_probabilities(n)
    return Problem(ifs, n, ifs.margin(n, gamma), curve, points, seed, settings, _trainer())


def _fits(curve: Any, n: int) -> bool:
    try:
        curve.level_probabilities(n)
    except ConfigError:
        return False
    return True


def _trainer() -> Any:
    """The native engine where it can run, some ten times faster on networks of this size; else torch."""
    from fractal_ifs.engines import cpp as native
    from fractal_ifs.theorems import learn

    try:
        native.isa()
    except native.Unavailable:
        return learn.train
    return _train_natively


def _train_natively(parameters: Any, x: Any, y: Any, steps: int, lr: float) -> list[Any]:
    import numpy as np
    import torch

    from fractal_ifs.engines import cpp as native

    count, (width, d), depth = len(parameters[0]), parameters[0].shape[1:], len(parameters) // 2 - 1
    points, labels = x.astype(np.float32), y.astype(np.float32)
    flat = torch.cat([p.reshape(count, -1) for p in parameters], 1).float().numpy()
    tasks = [
        native.Task(
            params=params,
            d=d,
            width=width,
            depth=depth,
            x=points,
            y=labels,
            exp_avg=np.zeros_like(params),
            exp_avg_sq=np.zeros_like(params),
            steps=steps,
            lr=lr,
        )
        for params in flat
    ]
    native.advance(tasks, 1)
    ends = np.cumsum([p[0].numel() for p in parameters])[:-1]
    parts = np.split(flat.astype(np.float64), ends, axis=1)
    return [torch.from_numpy(part).reshape(p.shape) for part, p in zip(parts, parameters, strict=True)]


def _show(checks: list[Any], title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("statement", "setting", "bound", "measured", "holds"):
        table.add_column(column, overflow="fold")
    for check in checks:
        holds = {True: "[green]yes", False: "[bold red]NO", None: "-"}[check.holds]
        table.add_row(
            *(text.replace("[", r"\[") for text in (check.statement, check.setting)), check.bound, check.measured, holds
        )
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def _draw(module: Any, shown: Any, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    FigureCanvasAgg(figure)
    module.draw(shown, figure.add_subplot())
    partial = path.with_suffix(".part.png")
    figure.savefig(partial, dpi=100)
    partial.replace(path)


def _write(path: Path, keys: dict[str, Any], checks: list[Any], seconds: dict[str, float]) -> None:
    from dataclasses import asdict

    import numpy as np
    import torch

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(type(value))

    record = {
        "format": FORMAT,
        "config": keys,
        "seconds": seconds,
        "torch": torch.__version__,
        "holds": all(check.holds is not False for check in checks),
        "checks": [asdict(check) for check in checks],
    }
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(record, indent=1, default=plain) + "\n")
    partial.replace(path)


def _words_to_keys(arguments: list[str]) -> list[str]:
    """``theorem1 theorem3 fractal=vicsek -m`` -> ``-m statement=[theorem1,theorem3] fractal=vicsek``."""
    words, options, keys, value = [], [], [], False
    for argument in arguments:
        # a word is a statement unless it is an option or an option's value
        if value or argument.startswith("-"):
            options.append(argument)
            value = argument in OPTIONS_WITH_VALUE
        elif "=" in argument or argument.startswith("~"):
            keys.append(argument)
        else:
            words.append(argument)
    if words:
        keys.insert(0, f"statement={words[0]}" if len(words) == 1 else f"statement=[{','.join(words)}]")
    return options + keys


def main() -> None:
    """The command line."""
    sys.argv[1:] = _words_to_keys(sys.argv[1:])
    with refusals():
        run()
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()

"""``python -m fractal_ifs.theory [all|theorem1|...|corollary3] KEY=VALUE ...``: the paper's statements, each one run.

Prints a table (statement, setting, bound, measured, holds), explains what "-" means in it, and writes theory.json and a
picture of each statement into the run's directory. The exit status is 1 where a statement does not hold, or where the
input is outside its hypotheses.
"""

from __future__ import annotations

if __name__ == "__main__":
    from fractal_ifs.streams import beginning

    beginning()

import re
import sys
import time
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fractal_ifs.config.machine import check_writable
from fractal_ifs.config.messages import refusals
from fractal_ifs.config.plugins import check_plugin_keys
from fractal_ifs.config.session import VERSION_BASE, JobFunction, register
from fractal_ifs.config.trust import check_trust
from fractal_ifs.errors import ConfigError, counted
from fractal_ifs.extras import require
from fractal_ifs.files import CONF
from fractal_ifs.help.before_hydra import answered
from fractal_ifs.help.options import options_and_words
from fractal_ifs.help.theory import screen
from fractal_ifs.plotting.style import drawing, write_figure
from fractal_ifs.streams import columns, command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fractal_ifs.theorems.problem import Check, Problem
    from fractal_ifs.theorems.statements import Statement

NEGATIVES = "fractal.negatives is of training alone; here negatives of a level lie anywhere in K_(j-1) without K_j"

failed: list[str] = []  # what was refused or did not hold in this process, one line each


def job(config: DictConfig) -> int | None:
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

    from fractal_ifs.theorems.record import NAME, Computed, computed
    from fractal_ifs.theorems.statements import STATEMENTS, problems

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # pyright: ignore[reportAssignmentType]
    begin = time.perf_counter()
    keys, asked = problems(plain, HydraConfig.get().overrides.task)
    if keys.figures and any(STATEMENTS[name].draw for name, _ in asked):
        require("plot")
    if plain["fractal"].get("negatives"):
        print(f"fractal={plain['fractal'].get('name')}: {NEGATIVES}")
    torch.set_num_threads(keys.threads)
    before, now = computed(directory, plain), Computed()
    for name, problem in asked:
        start, statement = time.perf_counter(), STATEMENTS[name]
        problem.drawn.update(before.pictures.get(name, {}))
        found = before.checks[name] if name in before.checks else statement.check(problem)
        if keys.figures and statement.draw:
            with drawing():
                write_figure(_draw(statement, problem, found), directory, name, keys.output)
        now.seconds[name] = before.seconds.get(name, round(time.perf_counter() - start, 2))
        now.checks[name], now.pictures[name] = found, problem.drawn
        _show(found, f"{name}, {now.seconds[name]:.1f} s")
    now.write(directory, plain)
    checks = [check for found in now.checks.values() for check in found]
    wrong = [check.statement for check in checks if check.holds is False]
    failed.extend(f"error: does not hold: {statement}" for statement in dict.fromkeys(wrong))
    source = f" from {NAME}" if before.checks else ""
    took = f"{time.perf_counter() - begin:.0f} s"
    print(f"{counted(len(checks), 'check')}{source} in {took}, {len(wrong)} don't hold: {directory}")
    return len(wrong)


def _show(checks: Sequence[Check], title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    from fractal_ifs.theorems.problem import WHY

    console = Console(width=columns(150), highlight=False)
    same = _shared([check.setting for check in checks])
    title = f"{title}: {same}".rstrip(", ") if same else title
    title = title.replace("[", r"\[")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("statement", "setting", "bound", "measured", "holds"):
        table.add_column(column, overflow="fold")
    for check in checks:
        holds = {True: "[green]yes", False: "[bold red]NO", None: f"- {check.why}"}[check.holds]
        setting = check.setting.removeprefix(same)
        names = [text.replace("[", r"\[") for text in (check.statement, setting)]
        table.add_row(*names, check.bound, check.measured, holds)
    if Measurement.get(console, console.options.update(max_width=10_000), table).maximum > console.width:
        table.leading = 1  # rows of several lines, told apart by an empty one
    console.print(table)
    for why, said in WHY.items():
        if any(check.why == why for check in checks):
            console.print(f"- {why}: {said}")


def _shared(settings: Sequence[str]) -> str:
    """The words that all of several settings begin with, up to a comma: a title says them once."""
    parts = [re.split(r"(?<=, )", setting) for setting in settings]
    same = [each[0] for each in takewhile(lambda found: len({*found}) == 1, zip(*parts, strict=False))]
    return "".join(same) if len(settings) > 1 and all(len(each) > len(same) for each in parts) else ""


def _draw(statement: Statement, problem: Problem[Any], checks: list[Check]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    FigureCanvasAgg(figure)
    assert statement.draw is not None
    statement.draw(problem, checks, figure.add_subplot())
    return figure


def _words_to_keys(arguments: list[str]) -> list[str]:
    """``theorem1 theorem3 fractal=vicsek -m`` -> ``-m statement=[theorem1,theorem3] fractal=vicsek``."""
    options, words = options_and_words(arguments)
    names = [word for word in words if "=" not in word and not word.startswith("~")]
    keys = [word for word in words if word not in names]
    if names:
        keys.insert(0, f"statement={names[0]}" if len(names) == 1 else f"statement=[{','.join(names)}]")
    return options + keys


def main() -> None:
    """The command line."""
    if answered(sys.argv[1:], screen):
        return
    sys.argv[1:] = words = _words_to_keys(sys.argv[1:])
    register(words)
    with refusals():
        check_plugin_keys(sys.argv[1:], "basic", "basic")
        check_trust("theory", sys.argv[1:])
        hydra.main(config_path=str(CONF), config_name="theory", **VERSION_BASE)(JobFunction(job, words))()
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    from fractal_ifs import theory as door  # so that ``job`` has a module that other processes can import

    command(door.main)

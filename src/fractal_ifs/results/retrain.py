"""Kept runs trained again, to see that they come out the same."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fractal_ifs.engines import cpp
from fractal_ifs.errors import ConfigError
from fractal_ifs.results.rows import read_runs, runs_of, train_command, without_zeros
from fractal_ifs.runs.records import read_record


def retrain(
    path: Path, number: int = 3, width: int | None = None, seed: int | None = None
) -> Iterator[tuple[str, bool]]:
    """Train some runs of a table again, each alone, by its own command.

    The bits of a run depend on the instruction set. So runs are drawn from those whose instruction set this processor
    has.

    Args:
        path: the table.
        number: how many runs are drawn at random.
        width: the largest width that is drawn. None: any.
        seed: of the draw. None: other runs every time.

    Yields for each run what was found, as text, and whether it is the same. Raises ConfigError where there is no such
    run.
    """
    runs = read_runs([path])[0]
    runs = runs.loc[(runs.engine == "native") & (runs.width <= (width or float("inf")))]
    runs = runs.loc[[train_command(run) is not None for run in runs_of(runs)]]
    if runs.empty:
        narrow = "" if width is None else f" of width <= {width}"
        raise ConfigError(f"{path}: has no run of the paper's protocol and the native engine{narrow}")
    state = cpp.variants()
    here = runs.loc[[state.get(str(isa)) == "ok" for isa in runs.isa]]
    if here.empty:
        reasons = (f"{isa}: {state.get(isa, 'unknown')}" for isa in sorted({str(isa) for isa in runs.isa}))
        raise ConfigError(f"{path}: its runs are equal on their own instruction set alone: {', '.join(reasons)}")
    for run in runs_of(here.sample(min(number, len(here)), random_state=seed)):
        line = str(train_command(run))
        with tempfile.TemporaryDirectory() as directory:
            arguments = [sys.executable, *line.split()[1:], "logger=none", f"hydra.run.dir={directory}/run"]
            environment = {**os.environ, "FRACTAL_IFS_ISA": str(run["isa"])}
            done = subprocess.run(arguments, env=environment, capture_output=True, text=True, cwd=directory)
            record = read_record(Path(directory) / "run")
        if record is None:
            yield f"{line}\n  failed: {done.stderr.strip().splitlines()[-1:]}", False
            continue
        names = ("best_test_acc", "best_step", "final_test_acc")
        again = without_zeros({name: record[name] for name in ("status", *names)})
        same = all(again[name] == run[name] for name in names)
        kept, now = (", ".join(f"{name} {found[name]}" for name in names) for found in (run, again))
        yield f"{line}\n  kept: {kept}\n  now:  {now}: {'the same' if same else 'DIFFERENT'}", same

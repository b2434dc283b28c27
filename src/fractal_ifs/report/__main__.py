"""python -m fractal_ifs.report DIR...: what sweeps found, beside the paper.

report status DIR...: how far they are.
report collect DIR... --into FILE: add their finished runs to a table to keep.
report check FILE: train a few runs of such a table again, and compare.

DIR is the directory of a sweep that has ended, is still running, or was killed, with runs at any depth below it. It may
also be the results.csv of an earlier report. OUT gets results.csv and .parquet (a row per run), cells.csv (the best
over learning rates, the mean over seeds), tables.md, .tex and .txt, report.md, figures/*.png, pictures/*.png (what each
cell's network has learned, where its checkpoint is below DIR) and index.html, one page that needs no network.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fractal_ifs import streams
from fractal_ifs.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    """The options of a report itself, without a subcommand."""
    out = argparse.ArgumentParser(
        prog="python -m fractal_ifs.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("paths", nargs="+", type=Path, metavar="DIR", help="a sweep's directory, or a results.csv")
    out.add_argument("-o", "--output", type=Path, default=Path("report"), metavar="OUT", help="default: report")
    out.add_argument("--no-figures", action="store_true", help="only tables and verdicts: no pictures, no page")
    return out


def collect(arguments: Sequence[str]) -> str:
    """Add the finished runs below some directories to a table, as the key ``kept`` does during training."""
    from fractal_ifs.results import finished_runs

    out = argparse.ArgumentParser(prog="python -m fractal_ifs.report collect", description=collect.__doc__)
    out.add_argument("paths", nargs="+", type=Path, metavar="DIR", help="a sweep's directory")
    out.add_argument("--into", type=Path, required=True, metavar="FILE", help="a CSV file, created if there is none")
    given = out.parse_args(arguments)
    added, notes = finished_runs.add_below(given.into, given.paths)
    lines = [f"note: {note}" for note in notes]
    return "\n".join([*lines, f"{added} runs added to {given.into}, which has {len(finished_runs.read(given.into))}"])


def check(arguments: Sequence[str]) -> None:
    """Train some runs of a table of kept runs again, each by its own command. The exit status is 1 if one differs."""
    from fractal_ifs.results.retrain import retrain

    out = argparse.ArgumentParser(prog="python -m fractal_ifs.report check", description=check.__doc__)
    out.add_argument("path", type=Path, metavar="FILE", help="the table")
    out.add_argument("-n", "--number", type=int, default=3, help="how many runs, drawn at random; default: 3")
    out.add_argument("--width", type=int, help="the largest width that is drawn; default: any")
    out.add_argument("--seed", type=int, help="of the draw: the same seed draws the same runs")
    given = out.parse_args(arguments)
    good = True
    for text, same in retrain(given.path, given.number, given.width, given.seed):
        print(text, flush=True)
        good &= same
    if not good:
        sys.exit(1)


def status(arguments: Sequence[str]) -> str:
    """How far the sweeps in some directories are; default: multirun."""
    from fractal_ifs.sweeps.status import show

    return "\n".join(show(Path(path)) for path in arguments or ["multirun"])


def report(arguments: Sequence[str]) -> str:
    """Write the report, and return its text for a terminal."""
    given = parser().parse_args(arguments)
    from fractal_ifs.report.write import write_report

    return write_report(given.paths, given.output, not given.no_figures)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = {"status": status, "collect": collect, "check": check}.get(arguments[0] if arguments else "")
    try:
        text = command(arguments[1:]) if command else report(arguments)
        if text is not None:
            print(text)
    except ConfigError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    streams.command(main)

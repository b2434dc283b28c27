"""python -m fractal_ifs.report DIR...: what sweeps found, beside the paper.

report status DIR...: how far they are. report collect DIR... --into FILE: add their finished runs to a table to keep.
report check FILE: train a few of such a table again, and compare.

DIR is a directory with runs at any depth below it, of a sweep that has ended, is still running, or was killed; or the
results.csv of an earlier report. Written into OUT: results.csv and .parquet (a row per run), cells.csv (the best over
learning rates, the mean over seeds), tables.md, .tex and .txt, report.md, figures/*.png, pictures/*.png (what each
cell's network has learned, where its checkpoint is below DIR) and index.html, one page that needs no network.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fractal_ifs.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m fractal_ifs.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("paths", nargs="+", type=Path, metavar="DIR", help="a sweep's directory, or a results.csv")
    out.add_argument("-o", "--output", type=Path, default=Path("report"), metavar="OUT", help="default: report")
    out.add_argument("--no-figures", action="store_true", help="tables and verdicts alone: no pictures, no page")
    return out


def collect(arguments: Sequence[str]) -> str:
    """Add the finished runs below some directories to a table, as the key ``kept`` does while they train."""
    from fractal_ifs.results import finished_runs
    from fractal_ifs.runs.records import walk

    out = argparse.ArgumentParser(prog="python -m fractal_ifs.report collect", description=collect.__doc__)
    out.add_argument("paths", nargs="+", type=Path, metavar="DIR", help="a sweep's directory")
    out.add_argument("--into", type=Path, required=True, metavar="FILE", help="a CSV; made where there is none")
    given = out.parse_args(arguments)
    if missing := [path for path in given.paths if not path.is_dir()]:
        raise ConfigError(f"{missing[0]}: there is no such directory")
    added, notes = finished_runs.add(given.into, (directory for path in given.paths for directory, _ in walk(path)))
    lines = [f"note: {note}" for note in notes]
    return "\n".join([*lines, f"{added} runs added to {given.into}, which has {len(finished_runs.read(given.into))}"])


def check(arguments: Sequence[str]) -> None:
    """Train some runs of a table of kept runs again, each alone by its command; ends with 1 if one is different."""
    from fractal_ifs.results.retrain import retrain

    out = argparse.ArgumentParser(prog="python -m fractal_ifs.report check", description=check.__doc__)
    out.add_argument("path", type=Path, metavar="FILE")
    out.add_argument("-n", "--number", type=int, default=3, help="how many, drawn at random; default: 3")
    out.add_argument("--width", type=int, help="none wider than that")
    out.add_argument("--seed", type=int, help="draw the same ones again")
    given = out.parse_args(arguments)
    good = True
    for text, same in retrain(given.path, given.number, given.width, given.seed):
        print(text, flush=True)
        good &= same
    if not good:
        sys.exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments[:1] == ["status"]:
            paths = [Path(a) for a in arguments[1:]] or [Path("multirun")]
            from fractal_ifs.sweeps import status

            print("\n".join(status.show(path) for path in paths))
        elif arguments[:1] == ["collect"]:
            print(collect(arguments[1:]))
        elif arguments[:1] == ["check"]:
            check(arguments[1:])
        else:
            given = parser().parse_args(arguments)
            from fractal_ifs.report.write import write_report

            print(write_report(given.paths, given.output, not given.no_figures))
    except ConfigError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()

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


def report(paths: Sequence[Path], output: Path, figures: bool = True) -> str:
    """Write the report of all runs below ``paths`` into ``output``; returns the text for a terminal.

    Raises ConfigError where a path holds no run, or one of a later format.
    """
    from fractal_ifs.config.schema import check_writable
    from fractal_ifs.report import tables, verdicts
    from fractal_ifs.results import cells as data
    from fractal_ifs.runs import records

    check_writable(output)
    runs, notes = data.collect(paths)
    cells, claimed = data.cells(runs)
    made = tables.tables(cells)
    found = verdicts.verdicts(made)
    gaps = [line for table in made if (line := tables.missing(table))]
    counts = ", ".join(f"{n} {state}" for state, n in runs.status.value_counts().items())
    if len(claimed) > 20:
        claimed[20:] = [f"... and {len(claimed) - 20} more cells"]
    notes += claimed
    failed = runs[runs.status == "failed"]
    if len(failed):
        notes.append(f"{len(failed)} runs failed, the first: {failed.directory.iloc[0]}: {failed.error.iloc[0]}")

    if not any(path.resolve() == (output / "results.csv").resolve() for path in paths):  # a kept table stays as it is
        records.write(output / "results.csv", runs.to_csv(index=False).encode())
        records.write(output / "results.parquet", runs.to_parquet(index=False))
    records.write(output / "cells.csv", cells.to_csv(index=False).encode())
    markdown = "\n".join(tables.markdown(table) for table in made)
    terminal = "\n".join(tables.terminal(table) for table in made)
    records.write(output / "tables.md", markdown.encode())
    records.write(output / "tables.tex", "\n".join(tables.latex(table) for table in made).encode())
    records.write(output / "tables.txt", terminal.encode())
    pictures = []
    if figures:
        from fractal_ifs.report import figures as report_figures
        from fractal_ifs.report import page as report_page
        from fractal_ifs.report import pictures as report_pictures

        learned = report_pictures.draw(cells, output / "pictures")
        pictures = report_figures.draw(runs, cells, output / "figures")
        pictures += report_pictures.galleries(cells, learned, output / "figures")
        page = report_page.page(runs, cells, made, found, notes + gaps, learned)
        records.write(output / "index.html", page.encode())
    text = [
        "# Results beside the paper",
        f"{len(runs)} runs ({counts}), {len(cells)} cells. A cell: the learning rate that is best on the seeds all of "
        "its learning rates share, then the mean over that learning rate's seeds.",
        "## Verdicts",
        verdicts.markdown(found),
        "## Missing",
        "\n".join(f"- {line}" for line in gaps) or "Nothing.",
        "## Notes",
        "\n".join(f"- {line}" for line in notes) or "None.",
        "## Tables",
        markdown,
        *(["## Figures", "\n\n".join(f"![{p.stem}](figures/{p.name})" for p in pictures)] if pictures else []),
    ]
    records.write(output / "report.md", ("\n\n".join(text) + "\n").encode())
    lines = [
        terminal,
        f"{len(runs)} runs: {counts}",
        *(f"missing: {g}" for g in gaps),
        *(f"note: {n}" for n in notes),
        "",
    ]
    lines += [f"{v.verdict:>12}  {v.claim}" + (f": {v.ours}" if v.ours else "") for v in found]
    return "\n".join([*lines, "", str(output / ("index.html" if figures else "report.md"))])


def collect(arguments: Sequence[str]) -> str:
    """Add the finished runs below some directories to a table, as the key ``kept`` does while they train."""
    from fractal_ifs.results import finished_runs as kept
    from fractal_ifs.runs import records

    out = argparse.ArgumentParser(prog="python -m fractal_ifs.report collect", description=collect.__doc__)
    out.add_argument("paths", nargs="+", type=Path, metavar="DIR", help="a sweep's directory")
    out.add_argument("--into", type=Path, required=True, metavar="FILE", help="a CSV; made where there is none")
    given = out.parse_args(arguments)
    if missing := [path for path in given.paths if not path.is_dir()]:
        raise ConfigError(f"{missing[0]}: there is no such directory")
    added, notes = kept.add(given.into, (directory for path in given.paths for directory, _ in records.walk(path)))
    lines = [f"note: {note}" for note in notes]
    return "\n".join([*lines, f"{added} runs added to {given.into}, which has {len(kept.read(given.into))}"])


def check(arguments: Sequence[str]) -> None:
    """Train some runs of a table of kept runs again, each alone by its command; ends with 1 if one is different."""
    from fractal_ifs.results import finished_runs as kept

    out = argparse.ArgumentParser(prog="python -m fractal_ifs.report check", description=check.__doc__)
    out.add_argument("path", type=Path, metavar="FILE")
    out.add_argument("-n", "--number", type=int, default=3, help="how many, drawn at random; default: 3")
    out.add_argument("--width", type=int, help="none wider than that")
    out.add_argument("--seed", type=int, help="draw the same ones again")
    given = out.parse_args(arguments)
    good = True
    for text, same in kept.check(given.path, given.number, given.width, given.seed):
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
            print(report(given.paths, given.output, not given.no_figures))
    except ConfigError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()

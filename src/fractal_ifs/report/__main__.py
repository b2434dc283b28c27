"""``python -m fractal_ifs.report DIR...``: what sweeps found, beside the paper; and its subcommands."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from fractal_ifs import streams
from fractal_ifs.config.options import line, number, path, some_of
from fractal_ifs.errors import counted, told
from fractal_ifs.help.layout import Examples, Parser, asked, program
from fractal_ifs.plotting.style import FORMATS, LARGEST, Output, check_letters
from fractal_ifs.results.numbers import BEST, NUMBERS


def parser() -> Parser:
    """The options of a report itself, without a subcommand."""
    command = program("report")
    text = f"""
        Write what sweeps found: a table of whatever varied in them, with the mean and spread over seeds and the best
        learning rate, figures of it, and the paper's tables and figures where runs belong to them.

        DIR is the directory of a sweep that has ended, is running or was killed, with runs at any depth below it, or
        the results.csv of an earlier report. OUT gets index.html, a page that needs no network; report.md; tables.md,
        .tex and .txt; results.csv and .parquet, a row for each run; cells.csv, the best over learning rates and the
        mean over seeds by the paper's keys; table.csv, the numbers of the sweep's own table; figures/, and pictures/ of
        what networks have learned, where their checkpoints are below DIR.

        {command} status, collect, check and compare do other things with runs; each has its --help.
        """
    given: Examples = (
        ("multirun/mine", ""),
        ("multirun/mine multirun/other -o out", "two together"),
        ("multirun/mine --columns width --number last10", "the table by width, of the mean of the last ten"),
        ("multirun/mine --number grad_snr@0", "of a measure, here at step 0"),
        ("status multirun/mine", "how far it is"),
        ("collect multirun/mine --into kept.csv", "add its finished runs to a table to keep"),
        ("check kept.csv", "train a few runs of such a table again, and compare"),
        ("compare first.csv second.csv", "what moved between two of the paper's tables"),
    )
    out = Parser(command, text, given)
    out.add_argument("paths", nargs="+", type=path, metavar="DIR", help="a sweep's directory, or a results.csv")
    out.add_argument("-o", "--output", type=path, default=Path("report"), metavar="OUT", help="default: report")
    out.add_argument("--columns", type=line, metavar="KEY", help="the key whose values are columns, as optimizer.clip")
    numbers = "; ".join(f"{each.name}: {each.said}" for each in NUMBERS.values())
    measure = "or a measure of these runs, after the last step, or with @STEP at that one"
    out.add_argument(
        "--number",
        type=line,
        default=BEST.name,
        metavar="NUMBER",
        help=f"by which runs are compared (default: best). {numbers}; {measure}",
    )
    out.add_argument(
        "--formats",
        type=some_of(FORMATS),
        default=("png",),
        metavar="LIST",
        help="of figures, besides png: svg, pdf or svg,pdf",
    )
    column, letters = "of figures; a paper's column has about 3.3", "the size of all letters in figures"
    out.add_argument("--width", type=number(float, 1, 40), metavar="INCHES", help=column)
    out.add_argument("--font", type=number(float, 3, LARGEST), metavar="POINTS", help=letters)
    out.add_argument("--no-figures", action="store_true", help="only tables and verdicts: no pictures, no page")
    return out


def status_parser() -> Parser:
    """The options of ``status``."""
    command = program("report")
    text = """
        How far sweeps are: how many of their runs are finished, running, waiting or failed, and how many steps are
        done. It asks Slurm about the tasks of a sweep there.
        """
    given: Examples = (
        ("", "all in multirun"),
        ("multirun/mine multirun/other", ""),
        ("multirun/mine --watch 60", "again every minute, until all runs have ended"),
    )
    out = Parser(command if command.endswith(" status") else f"{command} status", text, given)
    out.add_argument("paths", nargs="*", type=path, metavar="DIR", help="a sweep's directory; default: multirun")
    seconds = "look again every so many seconds, until all runs have ended or Ctrl-C; without a number: 10"
    out.add_argument("--watch", nargs="?", type=number(int, 1, 10**6), const=10, metavar="SECONDS", help=seconds)
    return out


def collect_parser() -> Parser:
    """The options of ``collect``."""
    text = "Add the finished runs below some directories to a table, as the key 'kept' does during training."
    out = Parser(f"{program('report')} collect", text, [("multirun/mine --into kept.csv", "")])
    out.add_argument("paths", nargs="+", type=path, metavar="DIR", help="a sweep's directory")
    out.add_argument("--into", type=path, required=True, metavar="FILE", help="a CSV file, created if there is none")
    return out


def check_parser() -> Parser:
    """The options of ``check``."""
    text = """
        Train some runs of a table of kept runs again, each by its own command. The exit status is 1 if one differs.
        """
    given: Examples = [("kept.csv -n 5 --width 20", "five runs, none wider than 20")]
    out = Parser(f"{program('report')} check", text, given)
    out.add_argument("path", type=path, metavar="FILE", help="the table")
    out.add_argument(
        "-n", "--number", type=number(int, 1, 10**9), default=3, help="how many runs, drawn at random; default: 3"
    )
    out.add_argument("--width", type=number(int, 1, 10**9), help="the largest width that is drawn; default: any")
    out.add_argument("--seed", type=number(int, 0, 2**32 - 1), help="of the draw: the same seed draws the same runs")
    return out


def compare_parser() -> Parser:
    """The options of ``compare``."""
    text = """
        Of the cells of the paper's tables that two tables of runs have: how far each is from the paper, what moved
        between them, and at which learning rates; the verdicts on the paper's claims under each. In Markdown.
        """
    out = Parser(f"{program('report')} compare", text, [("first.csv second.csv --number chosen", "")])
    out.add_argument("first", type=path, metavar="FIRST", help="a sweep's directory, or a table of runs")
    out.add_argument("second", type=path, metavar="SECOND", help="another")
    numbers = [number.name for number in NUMBERS.values() if number.beside_paper]
    out.add_argument("--number", choices=numbers, default=BEST.name, help="by which runs are compared; default: best")
    return out


PARSERS = {"status": status_parser, "collect": collect_parser, "check": check_parser, "compare": compare_parser}


def collect(arguments: Sequence[str]) -> str:
    """Add the finished runs below some directories to a table, and return how many there are."""
    given = collect_parser().parse_args(arguments)
    from fractal_ifs.results import finished_runs

    added, notes = finished_runs.add_below(given.into, given.paths, "--into")
    lines = [f"note: {note}" for note in notes]
    there = len(finished_runs.read(given.into).rows)
    return "\n".join([*lines, f"{counted(added, 'run')} added to {given.into}, which has {there}"])


def check(arguments: Sequence[str]) -> None:
    """Train some runs of a table again. The exit status is 1 if one differs."""
    given = check_parser().parse_args(arguments)
    from fractal_ifs.results.retrain import retrain

    good = True
    for text, same in retrain(given.path, given.number, given.width, given.seed):
        print(text, flush=True)
        good &= same
    if not good:
        sys.exit(1)


def compare(arguments: Sequence[str]) -> str:
    """What moved between two tables of runs, in Markdown."""
    given = compare_parser().parse_args(arguments)
    from fractal_ifs.report.compare import compare as moved

    return moved(given.first, given.second, NUMBERS[given.number])


def status(arguments: Sequence[str]) -> str | None:
    """How far the sweeps in some directories are."""
    given = status_parser().parse_args(arguments)
    paths = given.paths or [Path("multirun")]
    if given.watch:
        from fractal_ifs.sweeps.watch import watch

        return watch(paths, given.watch)
    from fractal_ifs.sweeps.status import show

    return "\n".join(show(each) for each in paths)


def report(arguments: Sequence[str]) -> str:
    """Write the report, and return its text for a terminal."""
    given = parser().parse_args(arguments)
    drawn = Output(formats=given.formats, width=given.width, font=given.font)
    if not given.no_figures:
        check_letters(drawn, "--")
    from fractal_ifs.report.write import write_report

    terminal = shutil.get_terminal_size((170, 24)).columns if sys.stdout.isatty() else 170
    return write_report(
        given.paths,
        given.output,
        not given.no_figures,
        number=given.number,
        columns=given.columns,
        terminal=terminal,
        drawn=drawn,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if asked(arguments[:1]) and arguments[1:2] and arguments[1] in PARSERS:
        arguments[:2] = [arguments[1], "--help"]
    command = {"status": status, "collect": collect, "check": check, "compare": compare}.get(
        arguments[0] if arguments else ""
    )
    with told():
        text = command(arguments[1:]) if command else report(arguments)
        if text is not None:
            print(text)


if __name__ == "__main__":
    streams.command(main)

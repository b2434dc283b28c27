"""Writes the report of some sweeps into a directory: tables, figures, verdicts, one page."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

from fractal_ifs.config.machine import check_writable, obstacle
from fractal_ifs.errors import ConfigError, counted
from fractal_ifs.extras import require
from fractal_ifs.files import write
from fractal_ifs.plotting.style import FORMATS, Output
from fractal_ifs.report import forms, own_figures, page, paper_figures, pictures, verdicts
from fractal_ifs.report.content import Content, content_of
from fractal_ifs.results.numbers import BEST
from fractal_ifs.results.pivot import numbers
from fractal_ifs.results.rows import read_runs
from fractal_ifs.results.text_table import csv_of, may_replace
from fractal_ifs.results.varied import with_inner_keys
from fractal_ifs.runs.files import check_folder

# Of the paper's tables; below the table of a sweep stands what its own cells are.
CELL = (
    " A cell: the learning rate that is best on the seeds all of its learning rates share, or where they share none, "
    "the best of those with the most seeds, and never one at which a run diverged or failed if there is another; then "
    "the mean over that learning rate's seeds."
)


def write_report(
    paths: Sequence[Path],
    output: Path,
    with_figures: bool = True,
    *,
    number: str = BEST.name,
    columns: str | None = None,
    terminal: int = 170,
    drawn: Output = Output(),  # noqa: B008 (it is frozen)
) -> str:
    """Write the report of all runs below ``paths`` into the directory ``output``. Returns the text for a terminal.

    It has the sweep's own table, of whatever varied; without one is only the report of a kept table whose runs all
    have a place in the paper's. The paper's tables are there where runs belong to them at the paper's budget; at
    another if all runs have a place there, and those of a sweep are a tenth of the table's. Verdicts on its claims, and
    what is missing, are there where a cell has the paper's budget.

    Args:
        paths: as for ``results.rows.read_runs``.
        with_figures: also figures, pictures and the page, not only tables and verdicts.
        number: by which runs are compared, and what the cells of all tables are of: one of ``results.numbers.NUMBERS``.
            Or a measure, ``grad_snr`` or ``grad_snr@0``, after the last step or at another, for the sweep's own table:
            the paper's then are of its number, the best. Beside ``train`` none of the paper's numbers stands, and the
            claim that networks are near chance isn't judged.
        columns: the key whose values are the columns of the sweep's own table. None: see ``results.pivot.pivot``.
        terminal: how many columns the terminal has.
        drawn: how figures are written.

    Raises ConfigError where a path holds no run, or one of a later format, ``output`` can't be written, is a run's or a
    sweep's own directory or has a kept table of the name results.csv, ``columns`` is no key that differs, ``number`` is
    no number or measure of these runs, or a package of the extra ``report`` is not installed.
    """
    require("report", *([] if with_figures else ["pyarrow"]))
    if reason := obstacle(output):
        raise ConfigError(f"output directory {output}: {reason}")
    check_folder(output)
    table = output / "results.csv"
    its_own = not any(path.resolve() == table.resolve() for path in paths)  # else it is left as it is
    if its_own and not may_replace(table):
        raise ConfigError(f"output directory {output}: its results.csv is no report's table; give another directory")
    runs, notes = read_runs(paths)
    found = content_of(runs, number, columns)
    check_writable(output)
    if its_own:
        whole, inner = with_inner_keys(runs)  # as in a sweep's own table
        write(table, csv_of(whole))
        unlike = [name for name in inner if whole[name].dtype == object]  # texts beside numbers
        write(output / "results.parquet", whole.astype(dict.fromkeys(unlike, str)).to_parquet(index=False))
    _write_tables(found, output)
    drawn = replace(drawn, formats=tuple(dict.fromkeys(("png", *drawn.formats))))
    learned = pictures.write_thumbnails(found.cells, output / "pictures") if found.tables and with_figures else {}
    files = _write_figures(found, learned, output / "figures", drawn) if with_figures else []
    written = {file.with_suffix(f".{kind}") for file in files for kind in drawn.formats}
    notes += [*_of_an_earlier_report(found, output, with_figures, written), *found.notes]
    if with_figures:
        write(output / "index.html", page.render_page(found, notes, learned, files).encode())
    write(output / "report.md", _markdown(found, notes, files).encode())
    return f"{_text(found, notes, terminal)}\n\n{output / ('index.html' if with_figures else 'report.md')}"


def _of_an_earlier_report(found: Content, output: Path, with_figures: bool, written: Set[Path]) -> list[str]:
    """A note on what lies in the directory besides this report. ``written``: its figures."""
    not_now = {"table.csv": not found.own, "index.html": not with_figures}
    left = [name for name, lacking in not_now.items() if lacking and (output / name).exists()]
    drawn = [path for kind in FORMATS for path in (output / "figures").glob(f"*.{kind}")]
    left += sorted(f"figures/{path.name}" for path in {*drawn} - written)
    names = ", ".join([*left[:6], *([f"{len(left) - 6} more"] if len(left) > 6 else [])])
    return [f"{names} in {output}: of an earlier report, left as they are"] if left else []


def _write_tables(found: Content, output: Path) -> None:
    write(output / "cells.csv", csv_of(found.cells.frame()))
    if found.own:
        write(output / "table.csv", csv_of(numbers(found.own.table)))
    write(output / "tables.md", forms.all_markdown(found).encode())
    write(output / "tables.tex", forms.all_latex(found).encode())
    write(output / "tables.txt", forms.all_terminal(found, 170).encode())


def _write_figures(found: Content, learned: Mapping[str, bytes], folder: Path, drawn: Output) -> list[Path]:
    """Write figures, and galleries of the pictures. Returns them, of each the PNG, which the page shows."""
    files = paper_figures.write_figures(found.runs, found.cells, folder, drawn) if found.tables else []
    files += pictures.write_galleries(found.cells, learned, folder)
    own = own_figures.write_figures(found.own.table, folder, drawn) if found.own else []
    return [*own, *files]


def _markdown(found: Content, notes: Sequence[str], files: Sequence[Path]) -> str:
    """The content of report.md."""
    beside = "Results beside the paper"
    if not found.cells.number.beside_paper:
        beside = "Training accuracies, in the form of the paper's tables"
    cells = len(found.own.table.cells if found.own else found.cells)
    text = [
        f"# {beside if found.tables else 'Results'}",
        f"{counted(len(found.runs), 'run')} ({found.states}), {cells} cells."
        + ("" if found.own and not found.tables else CELL),
        *(["## Verdicts", verdicts.markdown(found.verdicts)] if found.verdicts else []),
        *(["## Missing", _listed(found.missing) or "Nothing."] if found.missing is not None else []),
        "## Notes",
        _listed([forms.plain(line) for line in notes]) or "None.",
        "## Tables",
        forms.all_markdown(found),
        *(["## Figures", "\n\n".join(f"![{file.stem}](figures/{file.name})" for file in files)] if files else []),
    ]
    return "\n\n".join(text) + "\n"


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _text(found: Content, notes: Sequence[str], width: int) -> str:
    """What a terminal of so many columns shows."""
    judged = [each for each in found.verdicts if each.verdict != "not run"]
    lines = [
        forms.all_terminal(found, width),
        f"{counted(len(found.runs), 'run')}: {found.states}",
        *(f"missing: {line}" for line in found.missing or ()),
        *(f"note: {line}" for line in notes),
        *([""] if found.verdicts else []),
        *(f"{each.verdict:>12}  {each.claim}" + (f": {each.ours}" if each.ours else "") for each in judged),
    ]
    if left := len(found.verdicts) - len(judged):
        lines.append(f"{left} of the paper's claims can't be judged from these runs")
    return "\n".join(lines)

"""Writes the report of some sweeps into a directory: tables, figures, verdicts, one page."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fractal_ifs.config.machine import check_writable, obstacle
from fractal_ifs.errors import ConfigError, counted
from fractal_ifs.extras import require
from fractal_ifs.files import write
from fractal_ifs.plotting.style import Output
from fractal_ifs.report import figures, forms, own_figures, page, pictures, tables, verdicts
from fractal_ifs.report.notes import lost
from fractal_ifs.results.cells import form_cells
from fractal_ifs.results.measured import with_measure
from fractal_ifs.results.numbers import NUMBERS, Number
from fractal_ifs.results.pivot import numbers, pivot
from fractal_ifs.results.rows import read_runs
from fractal_ifs.results.text_table import csv_of
from fractal_ifs.results.varied import with_inner_keys

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
    number: Number = "best",
    columns: str | None = None,
    terminal: int = 170,
    drawn: Output = Output(),  # noqa: B008 (it is frozen)
) -> str:
    """Write the report of all runs below ``paths`` into the directory ``output``. Returns the text for a terminal.

    It has the sweep's own table, of whatever varied; without one is only the report of a kept table whose runs all
    have a place in the paper's. The paper's tables are there where runs belong to them, at the paper's budget if others
    don't. Verdicts on its claims, and what is missing, are there where a cell has that budget.

    Args:
        paths: as for ``results.rows.read_runs``.
        with_figures: also figures, pictures and the page, not only tables and verdicts.
        number: by which runs are compared, and what the cells of all tables are of: one of ``results.numbers.NUMBERS``.
            Or a measure, ``grad_snr`` or ``grad_snr@0``, after the last step or at another, for the sweep's own table:
            the paper's then are of its number, the best. Beside ``train`` none of the paper's numbers stands.
        columns: the key whose values are the columns of the sweep's own table. None: see ``results.pivot.pivot``.
        terminal: how many columns the terminal has.
        drawn: how figures are written.

    Raises ConfigError where a path holds no run, or one of a later format, ``output`` can't be written, ``columns`` is
    no key that differs, ``number`` is no number or measure of these runs, or a package of the extra ``report`` is not
    installed.
    """
    drawn = replace(drawn, formats=tuple(dict.fromkeys(("png", *drawn.formats))))  # the page shows PNGs
    require("report", *([] if with_figures else ["pyarrow"]))
    if reason := obstacle(output):
        raise ConfigError(f"output directory {output}: {reason}")
    runs, notes = read_runs(paths)
    in_tables = number if number in NUMBERS else "best"
    cells, claimed = form_cells(runs, in_tables)
    every = tables.tables(cells)
    on_grid = tables.tell_all(runs, cells)
    made = tables.shown(every, whole=not on_grid)
    at_its_budget = bool(tables.shown(made, whole=True))
    found = verdicts.verdicts(every) if at_its_budget else []
    own, with_keys = None, runs
    asked = columns or number != in_tables
    if asked or not made or not on_grid or any(Path(place).is_dir() for place in runs.directory.dropna()):
        with_keys, inner = with_inner_keys(runs)
        if number not in NUMBERS:
            with_keys, number = with_measure(with_keys, number)
        own = pivot(with_keys, inner, number, columns)
    check_writable(output)
    not_now = {"table.csv": not own, "index.html": not with_figures}
    if left := [name for name, lacking in not_now.items() if lacking and (output / name).exists()]:
        notes.append(f"{' and '.join(left)} in {output}: of an earlier report, left as they are")
    gaps = [line for table in made if on_grid and at_its_budget and (line := tables.missing(table))]
    counts = ", ".join(f"{n} {state}" for state, n in runs.status.value_counts().items())
    if made:
        notes += [f"of the paper's tables: {line}" for line in claimed[:20]] if own else claimed[:20]
        notes += [f"... and {len(claimed) - 20} more notes on cells"] if len(claimed) > 20 else []
    notes += lost(runs, own, made)

    if not any(path.resolve() == (output / "results.csv").resolve() for path in paths):  # a kept table is left as it is
        write(output / "results.csv", csv_of(runs))
        write(output / "results.parquet", runs.to_parquet(index=False))
    write(output / "cells.csv", csv_of(cells))
    if own:
        write(output / "table.csv", csv_of(numbers(own)))
    markdown = "\n".join([*([forms.pivot_markdown(own)] if own else []), *map(forms.markdown, made)])
    latex = [*([forms.pivot_latex(own)] if own else []), *map(forms.latex, made)]
    write(output / "tables.md", markdown.encode())
    write(output / "tables.tex", "\n".join(latex).encode())
    narrow, wide = (
        "\n".join([*([forms.pivot_terminal(own, width)] if own else []), *map(forms.terminal, made)])
        for width in (terminal, 170)
    )
    write(output / "tables.txt", wide.encode())
    figures_of: list[Path] = []
    if with_figures:
        learned, part = {}, None
        if made:
            learned = pictures.write_thumbnails(cells, output / "pictures")
            figures_of = figures.write_figures(runs, cells, output / "figures", drawn)
            figures_of += pictures.write_galleries(cells, learned, output / "figures")
        if own:
            named = own_figures.write_figures(own, output / "figures", drawn)
            figures_of = [*named, *figures_of]
            part = page.Own(
                own, with_keys, [(path.stem, path.read_bytes()) for path in named if path.stem in page.FIGURES]
            )
        html = page.render_page(runs, cells, made, found, notes + gaps, learned, part)
        write(output / "index.html", html.encode())
    title = (
        "# Training accuracies, in the form of the paper's tables"
        if number == "train"
        else "# Results beside the paper"
    )
    text = [
        title if made else "# Results",
        f"{counted(len(runs), 'run')} ({counts}), {len(own.cells if own else cells)} cells."
        + ("" if own and not made else CELL),
        *(["## Verdicts", verdicts.markdown(found)] if found else []),
        *(["## Missing", "\n".join(f"- {line}" for line in gaps) or "Nothing."] if on_grid and found else []),
        "## Notes",
        "\n".join(f"- {forms.plain(line)}" for line in notes) or "None.",
        "## Tables",
        markdown,
        *(["## Figures", "\n\n".join(f"![{p.stem}](figures/{p.name})" for p in figures_of)] if figures_of else []),
    ]
    write(output / "report.md", ("\n\n".join(text) + "\n").encode())
    lines = [
        narrow,
        f"{counted(len(runs), 'run')}: {counts}",
        *(f"missing: {g}" for g in gaps),
        *(f"note: {n}" for n in notes),
        *([""] if found else []),
    ]
    judged = [v for v in found if v.verdict != "not run"]
    lines += [f"{v.verdict:>12}  {v.claim}" + (f": {v.ours}" if v.ours else "") for v in judged]
    if len(judged) < len(found):
        lines.append(f"{len(found) - len(judged)} of the paper's claims can't be judged from these runs")
    return "\n".join([*lines, "", str(output / ("index.html" if with_figures else "report.md"))])

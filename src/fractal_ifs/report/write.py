"""Writes the report of some sweeps into a directory: tables, figures, verdicts, one page."""

from collections.abc import Sequence
from pathlib import Path

from fractal_ifs.config.machine import check_writable, obstacle
from fractal_ifs.errors import ConfigError, counted
from fractal_ifs.extras import require
from fractal_ifs.files import write
from fractal_ifs.report import figures, forms, page, pictures, tables, verdicts
from fractal_ifs.results.cells import form_cells
from fractal_ifs.results.rows import read_runs
from fractal_ifs.results.text_table import csv_of
from fractal_ifs.runs.records import Status


def write_report(paths: Sequence[Path], output: Path, with_figures: bool = True) -> str:
    """Write the report of all runs below ``paths`` into the directory ``output``. Returns the text for a terminal.

    Args:
        paths: as for ``results.rows.read_runs``.
        with_figures: also figures, pictures and the page, not only tables and verdicts.

    Raises ConfigError where a path holds no run, or one of a later format, ``output`` can't be written, or a package of
    the extra ``report`` is not installed.
    """
    require("report", *([] if with_figures else ["pyarrow"]))
    if reason := obstacle(output):
        raise ConfigError(f"output directory {output}: {reason}")
    runs, notes = read_runs(paths)
    check_writable(output)
    cells, claimed = form_cells(runs)
    made = tables.tables(cells)
    found = verdicts.verdicts(made)
    gaps = [line for table in made if (line := tables.missing(table))]
    counts = ", ".join(f"{n} {state}" for state, n in runs.status.value_counts().items())
    if len(claimed) > 20:
        claimed[20:] = [f"... and {len(claimed) - 20} more cells"]
    notes += claimed
    if line := verdicts.collapsed(runs, cells):
        notes.append(line)
    failed = runs[runs.status == Status.FAILED]
    if len(failed):
        first = failed.iloc[0]
        notes.append(f"{counted(len(failed), 'run')} failed, the first: {first.directory}: {first.error}")

    if not any(path.resolve() == (output / "results.csv").resolve() for path in paths):  # a kept table is left as it is
        write(output / "results.csv", csv_of(runs))
        write(output / "results.parquet", runs.to_parquet(index=False))
    write(output / "cells.csv", csv_of(cells))
    markdown = "\n".join(forms.markdown(table) for table in made)
    terminal = "\n".join(forms.terminal(table) for table in made)
    write(output / "tables.md", markdown.encode())
    write(output / "tables.tex", "\n".join(forms.latex(table) for table in made).encode())
    write(output / "tables.txt", terminal.encode())
    drawn: list[Path] = []
    if with_figures:
        learned = pictures.write_thumbnails(cells, output / "pictures")
        drawn = figures.write_figures(runs, cells, output / "figures")
        drawn += pictures.write_galleries(cells, learned, output / "figures")
        html = page.render_page(runs, cells, made, found, notes + gaps, learned)
        write(output / "index.html", html.encode())
    text = [
        "# Results beside the paper",
        f"{counted(len(runs), 'run')} ({counts}), {len(cells)} cells. A cell: the learning rate that is best on the "
        "seeds all of its learning rates share, then the mean over that learning rate's seeds.",
        "## Verdicts",
        verdicts.markdown(found),
        "## Missing",
        "\n".join(f"- {line}" for line in gaps) or "Nothing.",
        "## Notes",
        "\n".join(f"- {forms.plain(line)}" for line in notes) or "None.",
        "## Tables",
        markdown,
        *(["## Figures", "\n\n".join(f"![{p.stem}](figures/{p.name})" for p in drawn)] if drawn else []),
    ]
    write(output / "report.md", ("\n\n".join(text) + "\n").encode())
    lines = [
        terminal,
        f"{counted(len(runs), 'run')}: {counts}",
        *(f"missing: {g}" for g in gaps),
        *(f"note: {n}" for n in notes),
        "",
    ]
    lines += [f"{v.verdict:>12}  {v.claim}" + (f": {v.ours}" if v.ours else "") for v in found]
    return "\n".join([*lines, "", str(output / ("index.html" if with_figures else "report.md"))])

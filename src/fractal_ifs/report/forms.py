"""The forms in which a table is written: Markdown, LaTeX, HTML, and text for a terminal.

``Table`` is one of the paper's tables, ``Pivot`` the table of any sweep.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Sequence

from rich import box
from rich.table import Table as Rich

from fractal_ifs.report.content import Content
from fractal_ifs.report.tables import FRACTALS, Cell, Table, legend, text
from fractal_ifs.results import pivot
from fractal_ifs.results.pivot import Pivot
from fractal_ifs.results.terminal import Folded, as_text

# Within a word _ is a letter, as in every key; & begins an entity, as in &lt;, or is itself.
_MARKUP = re.compile(r"[\\`*\[\]|<~$]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")


def plain(text: str) -> str:
    """A text as Markdown shows it letter by letter, on one line, whatever a record says in it."""
    return re.sub(_MARKUP, r"\\\g<0>", " ".join(text.split()))


def all_markdown(found: Content) -> str:
    """All tables of a report in Markdown."""
    return _all(found, pivot_markdown, markdown)


def all_latex(found: Content) -> str:
    """All tables of a report in LaTeX."""
    return _all(found, pivot_latex, latex)


def all_terminal(found: Content, width: int) -> str:
    """All tables of a report as plain text; the sweep's own has at most so many columns."""
    return _all(found, lambda table: pivot_terminal(table, width), terminal)


def _all(found: Content, own: Callable[[Pivot], str], papers: Callable[[Table], str]) -> str:
    return "\n".join([*([own(found.own.table)] if found.own else []), *map(papers, found.tables)])


def markdown(table: Table) -> str:
    """The table in Markdown, with its legend."""
    lines = [f"### {table.title}", "", f"{_head(table)}.".capitalize(), ""]
    for fractal, block in table.blocks.items():
        lines += [f"**{FRACTALS.get(fractal, fractal)}**", ""]
        lines.append("| " + " | ".join([f"{table.row} \\ width", *map(str, table.widths)]) + " |")
        lines.append("|" + "---|" * (len(table.widths) + 1))
        for row, cells in zip(table.rows, block, strict=True):
            lines.append("| " + " | ".join([str(row), *(text(c).replace("*", "\\*") for c in cells)]) + " |")
        lines.append("")
    return "\n".join([*lines, *(f"{plain(line)}  " for line in legend(table)), ""])


def _head(table: Table) -> str:
    return "ours (the paper's) difference" if table.number.beside_paper else table.number.head


def latex(table: Table) -> str:
    """The table in LaTeX, a tabular for booktabs in the paper's layout.

    The paper's number and the difference stand in small type below ours.
    """
    n = len(table.widths)
    lines = ["\\begin{tabular}{l" + "r" * n + "}", "\\toprule"]
    lines += [f"{table.row} / width & " + " & ".join(map(str, table.widths)) + r" \\"]
    for fractal, block in table.blocks.items():
        lines += ["\\midrule", f"\\multicolumn{{{n + 1}}}{{l}}{{{FRACTALS.get(fractal, fractal)}}}" + r" \\"]
        for row, cells in zip(table.rows, block, strict=True):
            lines.append(f"{row} & " + " & ".join(_latex_ours(c) for c in cells) + r" \\")
            if any(c.difference is not None for c in cells):
                lines.append(" & " + " & ".join(_latex_paper(c) for c in cells) + r" \\")
    notes = [line.replace("*", "$^*$").replace("†", r"$^\dagger$").replace("−", "$-$") for line in legend(table)]
    caption = " ".join(f"% {table.title}. {' '.join(notes)}".split())  # a comment ends with its line
    return "\n".join([caption, *lines, "\\bottomrule", "\\end{tabular}", ""])


def _latex_ours(cell: Cell) -> str:
    if cell.ours is None:
        return ""
    marks = cell.marks.replace("†", r"\dagger")
    return f"{cell.ours:.3f}" + (f"$^{{{marks}}}$" if marks else "")


def _latex_paper(cell: Cell) -> str:
    return "" if cell.difference is None else f"\\scriptsize {cell.theirs:.{cell.digits}f} (${cell.difference:+.3f}$)"


def terminal(table: Table) -> str:
    """The table as plain text for a terminal, with its legend."""
    out = Rich(title=f"{table.title}: {_head(table)}", box=box.SIMPLE, title_justify="left")
    out.add_column(table.row, justify="right")
    for width in table.widths:
        out.add_column(f"width {width}", justify="right")
    for fractal, block in table.blocks.items():
        lines = [(row, cells) for row, cells in zip(table.rows, block, strict=True) if any(map(text, cells))]
        if lines:
            out.add_section()
            out.add_row(FRACTALS.get(fractal, fractal))
        for row, cells in lines:
            out.add_row(str(row), *(text(c) for c in cells))
    return as_text(out, legend(table), 170)


def pivot_markdown(table: Pivot) -> str:
    """The table of a sweep in Markdown, with its legend."""
    head, lines = pivot.grid(table)
    out = [f"### {pivot.title(table)}", ""]
    out += [_line(head), "|" + "---|" * len(head), *map(_line, lines), ""]
    return "\n".join([*out, *(f"{plain(line)}  " for line in pivot.legend(table)), ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join('<br>'.join(map(plain, cell.splitlines())) for cell in cells)} |"


def pivot_latex(table: Pivot) -> str:
    """The table of a sweep in LaTeX, a tabular for booktabs."""
    head, lines = pivot.grid(table)
    caption = " ".join(" ".join([f"% {pivot.title(table)}.", *pivot.legend(table)]).split())
    begin = ["\\begin{tabular}{" + "l" * len(table.rows) + "r" * (len(head) - len(table.rows)) + "}", "\\toprule"]
    rows = [" & ".join(map(_tex, line)) + r" \\" for line in (head, *lines)]
    return "\n".join([caption, *begin, rows[0], "\\midrule", *rows[1:], "\\bottomrule", "\\end{tabular}", ""])


def _tex(text: str) -> str:
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", r"\textbackslash "))
    said = escaped.replace("^", r"\^{}").replace("±", r"$\pm$").replace("~", r"\~{}")
    said = re.sub("[α-νξπ-ωΓΔΘΛΞΠΣΥΦΨΩ]", lambda found: _greek(found[0]), said)
    lines = [re.sub(r"^[\[*]", r"{}\g<0>", line) for line in said.splitlines()]  # else it is an option of \\ before it
    return r"\shortstack[r]{" + r" \\ ".join(lines) + "}" if len(lines) > 1 else "".join(lines)


def _greek(letter: str) -> str:
    """``$\\pi$``: LaTeX knows these letters by their names alone."""
    name = unicodedata.name(letter).split()[-1].replace("LAMDA", "LAMBDA")
    return f"$\\{name.lower() if letter.islower() else name.capitalize()}$"


def pivot_html(table: Pivot) -> str:
    """The table of a sweep in HTML, with its legend."""
    head, lines = pivot.grid(table)
    rows = ["".join(f"<th>{html.escape(name)}</th>" for name in head)]
    for line in lines:
        names = "".join(f"<th>{html.escape(name)}</th>" for name in line[: len(table.rows)])
        cells = ("<br>".join(html.escape(cell).splitlines()) for cell in line[len(table.rows) :])
        rows.append(names + "".join(f"<td>{cell}</td>" for cell in cells))
    notes = "".join(f"<li>{html.escape(line)}</li>" for line in pivot.legend(table))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    said = f'<p class="title">{html.escape(pivot.title(table))}</p>'  # no caption: a wide table would have it cut off
    return f'{said}<div class="wide"><table class="sweep">{body}</table></div><ul>{notes}</ul>'


def pivot_terminal(table: Pivot, width: int) -> str:
    """The table of a sweep as plain text of so many columns, with its legend."""
    return as_text(Folded(table, pivot.title(table)), pivot.legend(table), width)

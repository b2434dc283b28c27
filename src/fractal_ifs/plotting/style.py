"""How every picture looks: colours, markers, sizes. This module imports no matplotlib, so anyone may import it."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from fractal_ifs.errors import ConfigError
from fractal_ifs.files import write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Text

BLUE, ORANGE = "#1f77b4", "#ff7f0e"  # positive points (K_n) and negative points
PALE_BLUE, PALE_ORANGE = "#a9cbe6", "#ffd2a3"  # the network's answer outside K_n: positive, negative
INK, FAINT, ACCENT = "#222222", "#d9d9d9", "#c2185b"  # text and lines, grids and frames, what to look at

NARROWEST, LARGEST = 2.0, 12  # inches of a picture, points of letters
HIGHEST = 2.0  # times the height that a picture begins with
Format = Literal["png", "svg", "pdf"]
FORMATS: tuple[Format, ...] = get_args(Format)
_FORMULA = re.compile(r"(?:\\.|\$(?:\\.|[^$\\\n])*\$)+")  # or a letter after a backslash
_UNSEEN = re.compile(r"\\[a-zA-Z]+|[${}^_\\]")  # what takes no room in a formula, nearly
_BLANK = "\0"  # stands for a letter of a formula
# Eight colours that colour-blind people tell apart (Okabe and Ito 2008), and a marker beside each for those who print.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

RC: dict[str, Any] = {  # of matplotlib, for charts
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
    "pdf.fonttype": 42,  # letters that can be searched and edited; journals refuse type 3
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Output:
    """How pictures are written.

    Attributes:
        formats: some of ``FORMATS``.
        width: of a picture in inches, as a column of a paper has 3.3. None: what it needs.
        font: the size of all letters in points. None: what the picture has, smaller where it is made narrower.
        dpi: dots per inch of a PNG.
        colours: of a PNG, which takes less than half of the bytes. None: all.
    """

    formats: tuple[str, ...] = ("png",)
    width: float | None = None
    font: float | None = None
    dpi: int = 120
    colours: int | None = 256


class Line(NamedTuple):
    """How one of several lines is told from the others, in colour and without."""

    color: Any
    marker: str


def lines(n: int) -> list[Line]:
    """n lines that are choices, in no order: of more than eight, colours and markers come again in other pairs."""
    return [Line(COLOURS[i % 8], MARKERS[(i + i // 8) % 8]) for i in range(n)]


def ordered(n: int) -> list[Line]:
    """n lines whose order means something, as depths: from dark to light, which is an order in grey too."""
    import matplotlib as mpl

    return [Line(mpl.colormaps["viridis"](i / max(n - 1, 1) * 0.87), MARKERS[i % 8]) for i in range(n)]


def signs() -> Any:
    """Colours for the numbers of a network, from negative to positive, white at 0."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signs", [PALE_ORANGE, "white", BLUE])


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Within: charts look as all of them do.

    Only these settings are set back: a notebook's first figure sets others, without which its next isn't shown.
    """
    import matplotlib as mpl

    settings: Any = mpl.rcParams
    before = {name: settings[name] for name in RC}
    settings.update(RC)
    try:
        yield
    finally:
        settings.update(before)


_LACKING = r"Glyph \d+ .* missing from"  # how a warning of matplotlib begins


@contextlib.contextmanager
def _any_letters() -> Iterator[None]:
    """Within: matplotlib doesn't warn of letters that its font lacks, which are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _LACKING, UserWarning)
        yield


@_any_letters()
def fit(figure: Figure, output: Output) -> None:
    """Give a figure the width and the letters that are asked for, and fold what is written and is too long.

    The height keeps the proportions, and grows where panels would have too little room for their letters, up to
    ``HIGHEST`` times.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    FigureCanvasAgg(figure)
    width, height = figure.get_size_inches()
    scale = 1.0 if output.width is None else output.width / width
    if output.width is not None:
        figure.set_size_inches(output.width, height * max(scale, 0.4 if scale < 1 else 1))
    if output.font is None and scale >= 1:
        figure.draw_without_rendering()
        return _fold_all(figure)

    def size_of(text: Any) -> float:
        return output.font or max(5.0, text.get_fontsize() * scale**0.5)

    sizes = {text: size_of(text) for text in figure.findobj(Text)}  # before names on axes are set, which are of these
    for axes in figure.axes:
        size = size_of((axes.xaxis.get_ticklabels() or [axes.title])[0])
        axes.tick_params(labelsize=size, pad=max(3.5, 0.45 * size))
    for text, size in sizes.items():
        assert isinstance(text, Text)
        text.set_fontsize(size)
    line = (output.font or 8) / 72  # in inches
    highest = HIGHEST * figure.get_figheight()
    for _ in range(30):
        with warnings.catch_warnings(record=True) as told:  # of a layout without room
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", _LACKING, UserWarning)
            figure.draw_without_rendering()
        before = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
        _fold_all(figure)
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
                _thin(axis)
        low = told or any(_low(axes, 6 * line * figure.dpi) for axes in figure.axes if axes.get_visible())
        low = low and figure.get_figheight() < highest
        if not low and before == [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]:
            break
        if low:
            figure.set_figheight(min(highest, 1.1 * figure.get_figheight()))


def _low(axes: Axes, least: float) -> bool:
    """Whether a panel has less height than ``least``, or .4 of its width, and would have more in a higher figure.

    One of a fixed aspect has more only if it is narrower than its place.
    """
    parent = axes.get_figure(root=False)
    assert parent
    place, box = axes.get_position(original=True).transformed(parent.transSubfigure), axes.get_window_extent()
    return 0.99 * place.height < box.height < max(least, 0.4 * box.width)


def _fold_all(figure: Figure) -> None:
    """Break titles, and what legends say, into lines that are no longer than what they stand over."""
    from matplotlib.figure import Figure, SubFigure

    for part in figure.findobj(lambda found: isinstance(found, Figure | SubFigure)):
        assert isinstance(part, Figure | SubFigure)
        for text in part.texts:
            if text.get_text() and text.get_text() == part.get_suptitle():
                _fold(text, 0.92 * part.bbox.width)
        for legend in part.legends:
            for text in legend.get_texts():
                _fold(text, 0.8 * part.bbox.width)
    for axes in figure.axes:
        box = axes.get_window_extent()
        middle = (box.x0 + box.x1) / 2
        beside = 2 * min(middle - figure.bbox.x0, figure.bbox.x1 - middle)
        room = min(1.1 * box.width, beside) if len(figure.axes) == 1 else box.width  # another panel may be beside
        _fold(axes.title, room)
        _fold(axes.xaxis.label, room)
        legend = axes.get_legend()
        if legend and (its := legend.get_window_extent()).width > box.width and its.x0 < box.x1:  # not beside it
            for text in legend.get_texts():
                _fold(text, 0.7 * box.width)


def _thin(axis: Axis) -> None:
    """Name fewer places on an axis while one name stands on another. The axis keeps its ends.

    Matplotlib chooses the places if it can do with fewer. Else every second name is left out.
    """
    from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator

    before = math.inf
    while names := _on_another(axis):
        locator = axis.get_major_locator()
        if isinstance(locator, MaxNLocator) and len(names) < before:
            before = len(names)
            locator.set_params(nbins=max(1, before - 2))  # one less than lie between them
        else:
            left_out = names[1::2]
            labels = [tick.label1 for tick in axis.get_major_ticks()]
            texts = ["" if label in left_out else label.get_text() for label in labels]
            axis.set_major_locator(FixedLocator(list(axis.get_majorticklocs())))
            axis.set_major_formatter(FixedFormatter(texts))


def _on_another(axis: Axis) -> list[Text]:
    """The names on an axis, if one stands on another and they are level."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    axis.get_majorticklabels()  # brings the ticks up to date; of panels inside it returns none
    ticks = zip(axis.get_majorticklocs(), axis.get_major_ticks(), strict=True)
    seen = [tick.label1 for at, tick in ticks if low - slack <= at <= high + slack]
    names = [label for label in seen if label.get_visible() and label.get_text()]
    boxes = [label.get_window_extent() for label in names]
    over = any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
    return names if over and not any(label.get_rotation() for label in names) else []


def _fold(text: Text, width: float) -> None:
    """Break a text into lines of so many pixels, if it is wider. A formula is never broken."""
    formulas = _FORMULA.findall(text.get_text())
    whole = _FORMULA.sub(lambda found: _BLANK * (len(_UNSEEN.sub("", found[0])) or 1), text.get_text()).split("\n")
    letters = max(map(len, whole))
    least = max([8, *(len(word) for line in whole for word in line.split() if _BLANK in word)])
    while text.get_text() and text.get_window_extent().width > width and letters > least:
        letters = max(least, min(letters - 1, int(letters * width / text.get_window_extent().width)))
        folded = "\n".join(part for line in whole for part in textwrap.wrap(line, letters) or [""])
        parts = itertools.zip_longest(re.split(f"{_BLANK}+", folded), formulas, fillvalue="")
        text.set_text("".join(itertools.chain.from_iterable(parts)))


@_any_letters()
def encoded(figure: Figure, kind: str, output: Output, salt: str) -> bytes:
    """The bytes of a picture, without a date and without random ids: the same picture always has the same.

    Args:
        kind: one of ``FORMATS``.
        salt: what the ids of an SVG are drawn from, as the picture's name.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if figure.canvas is None or type(figure.canvas).__name__ == "FigureCanvasBase":
        FigureCanvasAgg(figure)
    buffer, small = io.BytesIO(), io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": salt, "pdf.fonttype": 42}):
        date = {"svg": "Date", "pdf": "CreationDate"}.get(kind)
        figure.savefig(buffer, format=kind, dpi=output.dpi, metadata={date: None} if date else {})
    if kind != "png" or not output.colours:
        return buffer.getvalue()
    from PIL import Image

    Image.open(buffer).convert("RGB").quantize(output.colours).save(small, "PNG", optimize=True)
    return small.getvalue()


def write_figure(figure: Figure, directory: Path, name: str, output: Output) -> Path:
    """Write a figure in all formats. Returns the file of the first. Raises OSError."""
    fit(figure, output)
    directory.mkdir(parents=True, exist_ok=True)
    for kind in output.formats:
        write(directory / f"{name}.{kind}", encoded(figure, kind, output, name))
    return directory / f"{name}.{output.formats[0]}"


def check_letters(output: Output, prefix: str = "") -> None:
    """Raise ConfigError where a picture would be too narrow for its letters, which are from 3 to ``LARGEST`` points.

    At the widths that are taken every picture is legible, which was found by drawing all. ``prefix``: of the key.
    """
    letters = output.font or 8
    if output.width is not None and output.width < (least := max(NARROWEST, 0.3 * letters)):
        raise ConfigError(
            f"{prefix}width={output.width:g}: must be at least {least:g} for letters of {letters:g} points"
        )


def columns_of(names: Sequence[str], output: Output, most: int) -> int:
    """How many columns of a legend below a figure of ``output.width`` there is room for."""
    letters = max(map(len, names)) + 8
    return max(1, min(most, int((output.width or 8) * 72 / (0.55 * (output.font or 8) * letters))))


def panels_of(output: Output, inches: float, most: int) -> int:
    """How many panels of so many inches, wider with large letters, there is room for beside each other."""
    if output.width is None and output.font is None:
        return most
    return max(1, min(most, int((output.width or 8) / (inches * max(1.0, (output.font or 8) / 8)))))


def literal(text: object) -> str:
    """A text as matplotlib writes it letter by letter: a dollar begins no formula."""
    return str(text).replace("$", r"\$")


def thousands(step: float, _: object = None) -> str:
    """A number of steps on an axis: ``200k``, ``1M``."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if step >= size:
            return f"{step / size:g}{letter}"
    return f"{step:g}"


def plain_axes(axes: Axes) -> None:
    """Leave only the left and the lower axis, with faint horizontal grid lines behind the curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.grid(axis="y", color=FAINT, lw=0.5)
    axes.set_axisbelow(True)

"""What is wrong with the letters of a figure: cut off at its edge, or over one another."""

import itertools
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure


def wrongly_set(figure: Figure) -> list[str]:
    """A line for each text that is cut off, and for each two of which one stands on the other."""
    FigureCanvasAgg(figure).draw()
    page = figure.bbox.padded(1)
    boxes = [(text.get_text(), text.get_window_extent(), text.get_rotation() % 90) for text in _written(figure)]
    cut = [
        text for text, box, _ in boxes if box.x0 < page.x0 or box.x1 > page.x1 or box.y0 < page.y0 or box.y1 > page.y1
    ]
    over = [
        f"{text} | {other}"
        for (text, box, askew), (other, its, also) in itertools.combinations(boxes, 2)
        if box.padded(-1).overlaps(its.padded(-1)) and not (askew and also)
    ]
    return [f"cut off: {text}" for text in cut] + [f"over: {pair}" for pair in over]


def _written(figure: Figure) -> list[Any]:
    """All texts that are drawn."""
    texts: list[Any] = []
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        texts += [axes.title, *axes.texts, *(legend.get_texts() if (legend := axes.get_legend()) else [])]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            slack = 1e-9 * (high - low)
            ticks = [tick for tick in axis.get_major_ticks() if low - slack <= tick.get_loc() <= high + slack]
            texts += [axis.label, *(label for tick in ticks for label in (tick.label1, tick.label2))]
    for part in figure.findobj(lambda found: isinstance(found, Figure | SubFigure)):
        assert isinstance(part, Figure | SubFigure)
        texts += [*part.texts, *(text for legend in part.legends for text in legend.get_texts())]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]

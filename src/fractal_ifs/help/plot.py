"""What ``fractal-ifs plot`` takes, and its help."""

from __future__ import annotations

from collections.abc import Sequence

from fractal_ifs.files import CONF
from fractal_ifs.help.layout import Examples, program
from fractal_ifs.help.takes import Keys, Takes, choices, in_order, shapes
from fractal_ifs.plotting.keys import Plot

EXAMPLES: Examples = (
    ("fractal=vicsek curve=1,4,6", "three panels of samples in one picture"),
    ("fractal=vicsek,carpet curve=1,6", "two pictures"),
    ("run=multirun/mine/curve=1,width=10", "the decision regions of a network"),
    ("run=multirun/mine/curve=1,width=10 window=[0,1,0,1]", "and of them this part of the plane"),
)


def takes() -> Takes:
    """The groups, keys and options of the command."""
    options = (
        ("-c, --cfg job", "show the config that is composed, and do nothing else"),
        ("-cd, --config-dir DIR", "take choices of groups from DIR/GROUP/*.yaml too"),
        ("-h, --help", "this help; --help NAME: that on a key or a group"),
        ("--version", "Hydra's version"),
    )
    path = CONF / "plot.yaml"
    return Takes(choices(path), [Keys("keys", in_order(Plot, path)), *shapes()], options)


def screen(arguments: Sequence[str] = ()) -> str:
    """The help, or where keys or groups are named among the arguments, the help on these. Raises ConfigError."""
    text = """
        Draw distributions: the levels K_0 to K_n of a fractal, samples, and the curves P(j), as in Figures 1 to 3 of
        the paper. Or, with run=DIR, what a trained network has learned, and its history. A list of curves makes one
        picture; any other list makes one for each value.
        """
    return takes().screen(program("plot"), "[KEY=VALUE ...]", text, EXAMPLES, arguments)

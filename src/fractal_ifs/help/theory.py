"""What ``fractal-ifs theory`` takes, and its help."""

from __future__ import annotations

from collections.abc import Sequence

from fractal_ifs.files import CONF
from fractal_ifs.help.layout import Examples, program
from fractal_ifs.help.takes import Keys, Takes, choices, in_order, shapes
from fractal_ifs.theorems.keys import SECTIONS, Theory

EXAMPLES: Examples = (
    ("all", "every statement, in about a minute of one core"),
    ("theorem1 theorem3 fractal=vicsek shrink=0.9", "two of them, on another fractal, its images set apart"),
    ("theorem5 theorem5.delta=0.2", "with another value of a statement's own key"),
    ("-m theorem1 fractal=cantor,cantor2d_quarter", "on two fractals, one after the other"),
    ("experiment=conjecture", "Conjecture 1 on a thousand random distributions"),
)


def takes() -> Takes:
    """The statements, groups, keys and options of the command."""
    path = CONF / "theory.yaml"
    words = {"all": "all of these but conjecture1"}
    words |= {name: says[0].lower() + says[1:] for name, kind in SECTIONS.items() if (says := kind.__doc__)}
    statement, *others = in_order(Theory, path)
    keys = [Keys("keys", [statement._replace(values=tuple(words)), *others])]
    keys += [Keys(f"keys of {name}", own) for name, kind in SECTIONS.items() if (own := in_order(kind, path))]
    return Takes(choices(path), [*keys, *shapes()], words=words)


def screen(arguments: Sequence[str] = ()) -> str:
    """The help, or where keys or groups are named among the arguments, the help on these. Raises ConfigError."""
    text = """
        Try the paper's statements, each as a construction that runs. It prints what each bounds and what was measured,
        and leaves theory.json and pictures below outputs/theory/, in a directory named by the other words: a command
        that differs from the last in figures, formats, width, font or dpi alone draws from its theory.json, in seconds.
        The exit status is 1 where a statement doesn't hold.
        """
    usage = "[-m] [STATEMENT ...] [KEY=VALUE ...]"
    return takes().screen(program("theory"), usage, text, EXAMPLES, arguments)

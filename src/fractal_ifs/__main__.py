"""``fractal-ifs VERB ...`` or ``python -m fractal_ifs VERB ...``: all commands of the package under one name.

Each verb has a module of its own, which ``python -m fractal_ifs.VERB`` runs too.
"""

import difflib
import sys
from importlib import import_module
from typing import NamedTuple, NoReturn

from fractal_ifs import streams
from fractal_ifs.help.layout import Examples, caller, examples, paragraph, rows, show


class Verb(NamedTuple):
    """A command: the module whose ``main`` it calls, its line in the help, and arguments before the user's."""

    module: str
    line: str
    first: tuple[str, ...] = ()


VERBS = {
    "train": Verb("train", "train a network, or with -m a sweep of many"),
    "status": Verb("report.__main__", "how far sweeps are", ("status",)),
    "report": Verb("report.__main__", "what sweeps found, beside the paper: tables, figures, a page"),
    "plot": Verb("plot", "pictures of a fractal distribution, or of what a network has learned"),
    "predict": Verb("predictions", "what a network has learned to say of points of yours"),
    "export": Verb("export", "the network of a run in a file of ONNX or torch"),
    "theory": Verb("theory", "the paper's theorems, each one run"),
    "doctor": Verb("doctor", "which engine runs on this machine, how fast, and versions"),
    "dashboard": Verb("dashboard", "a W&B workspace for a sweep"),
    "completion": Verb("completion", "tab completion for bash, zsh and fish"),
}
EXAMPLES: Examples = (
    (
        "train -m fractal=vicsek curve=1,6 budget=quick sweep=one",
        "train two networks: the coarse curve is learned, the fine one is not",
    ),
    ("report multirun/one", "write that sweep's report into report/"),
    ("plot fractal=vicsek curve=1,4,6", "draw the distributions into plots/"),
)


def screen() -> str:
    """The help on all verbs."""
    command = caller()
    return "\n\n".join(
        [
            f"usage: {command} VERB ...",
            paragraph(
                "When does depth help a network that is trained by gradient descent? Experiments on fractal "
                "distributions, as of the paper 'Is Deeper Better only when Shallow is Good?', with thousands of tiny "
                "networks at a time."
            ),
            "verbs:\n" + rows(((name, verb.line) for name, verb in VERBS.items()), 14),
            examples(command, EXAMPLES),
            paragraph(f"'{command} VERB --help' says what a verb takes, '{command} --version' which version this is."),
        ]
    )


def main() -> int | None:
    """The command line. Returns what the verb's own ``main`` returns."""
    command, (name, *rest) = caller(), sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        if not rest:
            return show(screen())
        name, rest = rest[0], ["--help", *rest[1:]]
    if name == "--version":
        from fractal_ifs.version import __version__

        return print(f"fractal_ifs {__version__}")
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, 3, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"verbs are {', '.join(VERBS)}"
        sys.exit(f"error: {name}: there is no such verb; {hint}")
    verb = VERBS[name]
    sys.argv = [f"{command} {name}", *verb.first, *rest]
    return import_module(f"fractal_ifs.{verb.module}").main()


def script() -> NoReturn:
    """``fractal-ifs`` as a process of its own."""
    streams.command(main)


if __name__ == "__main__":
    script()

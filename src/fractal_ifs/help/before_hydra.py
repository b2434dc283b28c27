"""What the commands train and theory answer before Hydra reads their arguments: help, completion, unknown options."""

import sys
from collections.abc import Callable, Sequence

from fractal_ifs.errors import told
from fractal_ifs.help.layout import asked, show
from fractal_ifs.help.options import split
from fractal_ifs.help.shells import SCRIPTS


def answered(arguments: Sequence[str], screen: Callable[[Sequence[str]], str]) -> bool:
    """Whether the arguments ask for what needs no config; if so it is printed. An unknown option ends the process.

    Args:
        screen: makes the command's help.
    """
    with told():
        if asked(arguments):
            show(screen(arguments))
            return True
        parts = list(split(arguments))
    if not any(option and option.long == "--shell-completion" for _, option in parts):
        return False
    # Hydra's completion knows neither these commands nor `python -m`, and offers groups that a command refuses.
    shell = next((word.removeprefix("install=") for word, _ in parts if word.startswith("install=")), "")
    if shell not in SCRIPTS:
        sys.exit(f"error: --shell-completion: must be followed by {', '.join(f'install={name}' for name in SCRIPTS)}")
    show(SCRIPTS[shell])
    return True

"""``fractal-ifs completion SHELL``: tab completion of ``fractal-ifs ...`` and ``python -m fractal_ifs...``.

Prints what makes the shell ask ``fractal-ifs completion query LINE`` at each tab, which prints what may stand next.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

from fractal_ifs.help.layout import Parser, program, show
from fractal_ifs.help.shells import LINES, SCRIPTS
from fractal_ifs.help.takes import Takes, installed
from fractal_ifs.streams import command

PACKAGE = "fractal_ifs"


def candidates(line: str) -> list[str]:
    """What the last word of a command line may become, as whole words. Empty where that is a file or anything.

    Args:
        line: the command up to the cursor. A blank at its end begins a new word.
    """
    words = line.replace("'", "").replace('"', "").split()
    word = "" if not line or line[-1].isspace() else words.pop()
    from fractal_ifs.__main__ import VERBS

    match _command(words):
        case [_, verb, *arguments] if verb in VERBS:
            found = _arguments(verb, arguments, word)
        case [_]:
            found = [*VERBS, "--help", "--version"]
        case [] if words:
            found = [PACKAGE, *(f"{PACKAGE}.{verb}" for verb in VERBS if verb != "status")]  # which report has
        case _:
            found = []
    return list(dict.fromkeys(_stage(each, word) for each in found if each.startswith(word)))


def _command(words: Sequence[str]) -> list[str]:
    """The program, the verb and the arguments of ``python -m fractal_ifs.VERB`` too, as far as they are written."""
    if not words or not Path(words[0]).name.startswith("python"):
        return list(words)
    if words[1:2] != ["-m"]:
        return ["", "", ""]  # another program of Python's
    package, _, verb = words[2].partition(".") if words[2:] else ("", "", "")
    return [name for name in (package, verb) if name] + list(words[3:])


def _stage(name: str, word: str) -> str:
    """A name up to its next dot: ``trainer.`` stands for all keys of the trainer, until it is written."""
    dot = name.partition("=")[0].find(".", len(word))
    return name if dot < 0 else name[: dot + 1]


def _arguments(verb: str, arguments: Sequence[str], word: str) -> Iterable[str]:
    """What a verb takes."""
    from fractal_ifs.__main__ import VERBS

    if verb in ("train", "theory", "plot"):
        return _taken(import_module(f"{PACKAGE}.help.{verb}").takes(), arguments, word)
    if verb == "completion":
        return [*SCRIPTS, *parser().options()]
    if verb in ("doctor", "dashboard", "predict", "export"):
        return import_module(f"{PACKAGE}.{VERBS[verb].module}").parser().options() if word.startswith("-") else []
    from fractal_ifs.report import __main__ as report

    below = "status" if verb == "status" else arguments[0] if arguments else ""
    options = report.PARSERS.get(below, report.parser)().options() if word.startswith("-") else []
    return [*options, *(() if below else report.PARSERS)]


def _taken(takes: Takes, arguments: Sequence[str], word: str) -> Iterator[str]:
    """Options, groups and keys, and after ``=`` the values that they may have, each of a list."""
    name, equals, value = word.partition("=")
    keys = [key for keys in takes.keys for key in keys.keys]
    if word.startswith("-"):
        yield from (spelling for option, _ in takes.options for spelling in re.findall(r"--[\w-]+", option))
    elif arguments and arguments[-1] in ("-c", "--cfg"):
        yield from next(option for option, _ in takes.options if "--cfg" in option).split()[-1].split("|")
    elif not equals:
        yield from takes.words
        yield from (f"{each.name}=" for each in (*takes.groups, *keys))
    else:
        before, comma, _ = value.rpartition(",")
        groups = [group for group in takes.beside(arguments).groups if group.name == name]
        values = [choice for group in groups for choice in (*group.among, *installed(name))]
        values += [value for key in keys if key.name == name for value in key.values]
        given = before.split(",")
        yield from (f"{name}={before}{comma}{value}" for value in values if value not in given)


def parser() -> Parser:
    """The command's options."""
    text = f"""
        Print what makes a shell complete 'fractal-ifs' and 'python -m fractal_ifs': verbs, groups, keys, and their
        values. Put the line of your shell into its start-up file.

        bash, ~/.bashrc: {LINES["bash"]}

        zsh, ~/.zshrc, after compinit: {LINES["zsh"]}

        fish, ~/.config/fish/config.fish: {LINES["fish"]}
        """
    out = Parser(program("completion"), text)
    out.add_argument("shell", metavar="SHELL", choices=SCRIPTS, help=f"one of {', '.join(SCRIPTS)}")
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["query"]:
        for word in candidates(" ".join(arguments[1:])):
            print(word)
        return
    show(SCRIPTS[parser().parse_args(arguments).shell])


if __name__ == "__main__":
    command(main)

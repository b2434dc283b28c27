"""How the help of every command is laid out: plain text that fits the terminal."""

import argparse
import difflib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from fractal_ifs.errors import short

COLUMN = 26  # where explanations begin
BY_NAME, BY_MODULE = "fractal-ifs", "python -m fractal_ifs"  # the two ways to call the command of all verbs

Examples = Sequence[tuple[str, str]]  # what follows the command's name, and what it does


def width() -> int:
    """The columns that may be used: the terminal's, 80 where there is none, and never so many that it reads badly."""
    return max(40, min(100, shutil.get_terminal_size((80, 24)).columns))


def caller() -> str:
    """How the command of all verbs was called."""
    return BY_MODULE if os.path.basename(sys.argv[0]) == "__main__.py" else BY_NAME


def program(door: str) -> str:
    """How this command was called: ``fractal-ifs train``, or ``python -m fractal_ifs.train``."""
    called = sys.argv[0]  # as ``__main__`` has set it, or a path
    return called if called.startswith((f"{BY_NAME} ", f"{BY_MODULE} ")) else f"{BY_MODULE}.{door}"


def paragraph(text: str, indent: int = 0) -> str:
    """Text in lines that fit."""
    text = re.sub("([<>]=?) ", "\\1\N{NO-BREAK SPACE}", " ".join(text.split()))  # a bound stays on one line
    lines = textwrap.wrap(text, width() - indent, break_long_words=False, break_on_hyphens=False)
    return textwrap.indent("\n".join(lines), " " * indent).replace("\N{NO-BREAK SPACE}", " ")


def rows(pairs: Iterable[tuple[str, str]], column: int = COLUMN) -> str:
    """Names, and beside each what it means; below it where the name is too long."""
    lines: list[str] = []
    for name, text in pairs:
        explained = paragraph(text, column) if text else ""
        head = f"  {name}"
        if len(head) + 2 <= column and explained:
            lines.append(head.ljust(column) + explained[column:])
        else:
            lines += [head, *([explained] if explained else [])]
    return "\n".join(lines)


def examples(command: str, given: Examples) -> str:
    """Commands as they are typed, and below each what it does."""
    lines = ["examples:"]
    for arguments, what in given:
        lines += [f"  {command} {arguments}".rstrip(), *([paragraph(what, 6)] if what else [])]
    return "\n".join(lines)


def show(text: str) -> None:
    """Print a help."""
    print(text, flush=True)


class Parser(argparse.ArgumentParser):
    """A command's options in argparse, with help and refusals as of the other commands.

    Args:
        command: its name as it was called, see ``program``.
        text: what it does; blank lines part its paragraphs.
        given: examples.
    """

    def __init__(self, command: str, text: str, given: Examples = ()):
        parts = [paragraph(part) for part in text.split("\n\n")]
        if given:
            parts.append(examples(command, given))

        def layout(prog: str) -> argparse.HelpFormatter:
            return argparse.RawDescriptionHelpFormatter(prog, max_help_position=COLUMN, width=width())

        super().__init__(prog=command, description="\n\n".join(parts), formatter_class=layout)

    def print_help(self, file: Any = None) -> None:
        """Print the help."""
        show(self.format_help().rstrip())

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Parse as argparse does, unless help on one thing is asked for: ``--help OPTION``."""
        given = sys.argv[1:] if args is None else list(args)
        places = [place for place, argument in enumerate(given) if asked([argument])]
        words = [word for word in given[places[0] + 1 :] if word.strip("-") == word] if places else []
        if words:
            show("\n".join(map(self._on, words)))
            self.exit()
        return super().parse_known_args(given, namespace)

    def _on(self, word: str) -> str:
        """The lines of the help on one option or argument."""
        listed = re.split(r"^(?:positional arguments|options):$", self.format_help(), flags=re.MULTILINE)[1:]
        entries = re.findall(r"^  \S.*(?:\n {4,}\S.*)*", "\n".join(listed), re.MULTILINE)
        names = {name.strip("-"): entry for entry in entries for name in re.split(r"  |\n", entry[2:])[0].split(", ")}
        names = {name.split()[0].lower(): entry for name, entry in names.items()}
        if word.lower() in names:
            return names[word.lower()]
        near = difflib.get_close_matches(word.lower(), names, 1, 0.6)
        hint = f"did you mean {near[0]}?" if near else f"{self.prog} --help lists them"
        self.exit(2, f"error: {short(word)}: there is no such option; {hint}\n")

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments in one line."""
        told = re.sub(r"^argument (?:\S*/)?(\S+): (=?)", lambda found: found[1] + (found[2] or ": "), message)
        self.exit(2, f"error: {' '.join(told.split())}; {self.prog} --help says what it takes\n")

    def options(self) -> list[str]:
        """Its options, as they are typed."""
        return re.findall(r"^  (?:-\w(?: \w+)?, )?(--[\w-]+)", self.format_help(), re.MULTILINE)


def asked(arguments: Sequence[Any]) -> bool:
    """Whether help is asked for; the option may be cut short where it is the only one that begins so."""
    return any(argument in ("-h", "--help", "--hel", "--he") for argument in arguments)

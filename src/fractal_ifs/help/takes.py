"""What a command takes, described for its help and for completion in a shell: groups and keys, from conf/ and types."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml

from fractal_ifs.config.command import own_folders
from fractal_ifs.config.keys import Group, describe
from fractal_ifs.config.leaves import leaves
from fractal_ifs.config.own import TARGET
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.files import CONF
from fractal_ifs.help import options
from fractal_ifs.help.layout import Examples, examples, paragraph, rows


class Choices(NamedTuple):
    """A config group."""

    name: str  # as on the command line, such as hydra/launcher
    default: str
    doc: str
    files: tuple[Path, ...]

    @property
    def among(self) -> tuple[str, ...]:
        """The names that may be chosen."""
        return tuple(file.stem for file in self.files)

    def row(self) -> tuple[str, str]:
        """Its line in a help."""
        more = f"; --help {self.name} names others" if self.name.startswith("hydra/") else ""  # of installed packages
        return f"{self.name}={self.default}", f"{self.doc}: {', '.join(self.among)}{more}"


class Key(NamedTuple):
    """A key."""

    name: str  # as on the command line, such as trainer.devices
    default: str  # as it is written there
    doc: str
    allowed: str = ""
    values: tuple[str, ...] = ()  # all that are allowed, where they are few

    def row(self) -> tuple[str, str]:
        """Its line in a help."""
        return f"{self.name}={self.default}", f"{self.doc} ({self.allowed})" if self.allowed else self.doc


class Keys(NamedTuple):
    """Keys that belong together, under a title."""

    title: str
    keys: Sequence[Key]

    def text(self) -> str:
        """The part of a help that explains them."""
        return f"{self.title}:\n{rows(key.row() for key in self.keys)}"


class Takes(NamedTuple):
    """All that a command takes."""

    groups: Sequence[Choices]
    keys: Sequence[Keys]
    options: Sequence[tuple[str, str]] = options.OPTIONS
    words: Mapping[str, str] = {}  # what may stand alone, without a key, and what it means
    besides: Sequence[tuple[str, str]] = ()  # choices, and what each sets besides the keys of its group

    def screen(self, command: str, usage: str, text: str, given: Examples, arguments: Sequence[str] = ()) -> str:
        """The help of a command, or on the keys and groups that ``arguments`` name. With choices of a user's own.

        Raises ConfigError for a name that is none.
        """
        takes = self.beside(arguments)
        if asked := options.topics(arguments):
            return "\n\n".join(map(takes.on, asked))
        return takes.whole(command, usage, text, given)

    def beside(self, arguments: Sequence[str]) -> Takes:
        """The same with the choices of the directories that a command names, which hold files DIR/GROUP/NAME.yaml.

        The keys of a class or a function of one's own are among the keys too.
        """
        try:
            given, words = options.options_and_words(arguments)
        except ConfigError:  # an option that is refused, or isn't written to its end
            return self
        folders = own_folders([*given, *words])
        groups: list[Choices] = []
        keys = list(self.keys)
        for group in self.groups:
            found = [file for folder in folders for file in sorted((folder / group.name).glob("*.yaml"))]
            new = {file.stem: file for file in reversed(found) if file.stem not in group.among and file.is_file()}
            groups.append(group._replace(files=(*group.files, *reversed(new.values()))))
            keys += [of_class for file in reversed(new.values()) if (of_class := _of_class(group.name, file))]
        return self._replace(groups=groups, keys=keys)

    def whole(self, command: str, usage: str, text: str, given: Examples) -> str:
        """The help of a command."""
        parts = [f"usage: {command} {usage}", *map(paragraph, text.split("\n\n")), examples(command, given)]
        if self.words:
            parts.append("statements:\n" + rows(self.words.items(), 15))
        parts.append(
            "groups, with their defaults; --help NAME explains a group or a key:\n"
            + rows(group.row() for group in self.groups)
        )
        if self.besides:
            parts.append("what choices set besides, where it is not given:\n" + rows(self.besides))
        return "\n\n".join([*parts, "options:\n" + rows(self.options), *(keys.text() for keys in self.keys)])

    def on(self, word: str) -> str:
        """The help on a group, a key, all keys that begin so up to a dot, or a statement. Raises ConfigError."""
        parts: list[str] = []
        for group in self.groups:
            if group.name == word:
                head = f"{word}: {group.doc}. The default is {word}={group.default}."
                others = [(name, "of Hydra or an installed package") for name in installed(word)]
                parts += [paragraph(head), rows([*((file.stem, headline(file)) for file in group.files), *others])]
        if word in self.words:
            parts.append(rows([(word, self.words[word])], 15))
        name = word.replace("/", ".").rstrip(".")
        for title, keys in self.keys:
            if own := [key for key in keys if f"{key.name}.".startswith(f"{name}.")]:
                parts.append(Keys(title, own).text())
        if not parts:
            if word.startswith("hydra."):
                raise ConfigError(f"{short(word)}: is for Hydra; --cfg hydra shows its keys, docs/hydra.md says more")
            raise ConfigError(f"{short(word)}: there is no such key or group; {self._hint(word)}")
        return "\n\n".join(parts)

    def _hint(self, word: str) -> str:
        if of := [group.name for group in self.groups if word in group.among]:
            return f"it is a choice of {' and of '.join(of)}"
        names = [*(group.name for group in self.groups), *(key.name for keys in self.keys for key in keys.keys)]
        near = difflib.get_close_matches(word, [*names, *self.words], 1, 0.6)
        return f"did you mean {near[0]}?" if near else "--help lists them"


def choices(*files: Path) -> list[Choices]:
    """The groups in the lists of defaults of some files of conf/, those that have a comment on their line there.

    Of the experiments those that set nothing but keys of the command.
    """
    entries: list[str | dict[str, Any]] = [
        each for path in files for each in yaml.safe_load(path.read_bytes())["defaults"]
    ]
    pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
    defaults = {name.removeprefix("override "): value for name, value in pairs}
    docs = {name: doc for path in files for name, doc in _comments(path).items()}
    keys = {name for path in files for name in content(path)} | set(defaults)
    found: list[Choices] = []
    for name, default in defaults.items():
        there = sorted((CONF / name).glob("*.yaml"))
        if name == "experiment":
            there = [file for file in there if {key.split(".")[0] for key in content(file)} <= keys]
        if there and name in docs:
            found.append(Choices(name, written(default), docs[name], tuple(there)))
    return found


def installed(group: str) -> list[str]:
    """The choices of a group of Hydra's that are no files: its own, and those of installed packages."""
    if not group.startswith("hydra/"):
        return []
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # finds them
    return [name.removesuffix(".yaml") for name in ConfigStore.instance().list(group) if name.endswith(".yaml")]


def typed(kind: type[Group], path: Path, *others: Path) -> list[Key]:
    """The keys of a type with their defaults in a file, and in the files of other choices where those differ.

    In a file with sections the defaults are those of the type's own.
    """
    values, found = content(path), list[Key]()
    values = values.get(kind.PREFIX.rstrip("."), values)
    for key in describe(kind):
        if key.name == "name" or key.name not in values:  # set by choosing a file
            continue
        differing = [
            f"with {other.parent.name}={other.stem}: {written(content(other)[key.name])}"
            for other in others
            if content(other).get(key.name, values[key.name]) != values[key.name]
        ]
        doc = "; ".join([key.doc, *differing])
        found.append(Key(f"{kind.PREFIX}{key.name}", written(values[key.name]), doc, key.allowed, key.values))
    return found


def in_order(kind: type[Group], path: Path) -> list[Key]:
    """The same for one file, in its order: that of a type begins with the keys of the types below it."""
    order = list(leaves(content(path)))
    return sorted(typed(kind, path), key=lambda key: order.index(key.name))


def commented(path: Path, prefix: str = "") -> list[Key]:
    """The keys of a file with their defaults, and the comment that each has on its line."""
    docs = _comments(path)
    return [
        Key(f"{prefix}{name}", written(value), docs[name])
        for name, value in content(path).items()
        if name in docs and not isinstance(value, dict)
    ]


def _of_class(group: str, path: Path) -> Keys | None:
    """The keys of a user's file that names a class or a function. None for another, and for what can't be read."""
    try:
        found, docs = content(path), _comments(path)
    except (OSError, ValueError, AttributeError, RecursionError, yaml.YAMLError):  # told where it is chosen
        return None
    if TARGET not in found:
        return None
    keys = [Key(f"{group}.{key}", written(value), docs.get(key, "")) for key, value in found.items() if key != TARGET]
    return Keys(f"keys of {group}={path.stem}", keys)


def shapes() -> list[Keys]:
    """The keys of the groups fractal and curve, which have no types: in place of a choice's, or those that it lacks."""
    curves = [
        Key(f"curve.{name}", written(value), f"of curve={path.stem}: {headline(path)}")
        for path in sorted((CONF / "curve").glob("*.yaml"))
        for name, value in content(path).items()
        if value == "???"
    ]
    fractals = commented(CONF / "fractal" / "custom.yaml", "fractal.")
    return [Keys("keys of a fractal (here fractal=custom)", fractals), Keys("keys of a curve", curves)]


def content(path: Path) -> dict[str, Any]:
    """What a file of conf/ sets, without what it says to Hydra."""
    found: dict[str, Any] = yaml.safe_load(path.read_bytes()) or {}
    return {str(name): value for name, value in found.items() if name not in ("defaults", "hydra")}


def overridden(path: Path) -> dict[str, Any]:
    """What a file of conf/ chooses in other groups, unless the command line does."""
    found: dict[str, Any] = yaml.safe_load(path.read_bytes()) or {}
    entries: list[Any] = found.get("defaults", [])
    pairs = [pair for entry in entries if isinstance(entry, dict) for pair in cast(dict[str, Any], entry).items()]
    mark = "override /"
    return {key[len(mark) :].partition("@")[0]: value for key, value in pairs if key.startswith(mark)}


def headline(path: Path) -> str:
    """The first sentence of the comment at the top of a file of conf/."""
    top = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    lines = [line[1:].strip() for line in top if line.startswith("#")]
    text = " ".join(line for line in lines if not line.startswith(("@package", "python -m")))
    return re.split(r"(?<=[.]) (?=[A-Z\"])|[.:;]$|: (?=\w+=)", text)[0].removesuffix(".")


def written(value: Any) -> str:
    """A value as on the command line; empty where it is made from others."""
    if isinstance(value, str):
        return "" if value.startswith("${") else value
    if isinstance(value, (list, dict)):
        return json.dumps(cast(Any, value), separators=(",", ":")).replace('"', "")
    return "null" if value is None else str(value).lower()


def _comments(path: Path) -> dict[str, str]:
    """The comments behind keys and entries of lists, by their names."""
    lines = re.findall(
        r"^(?:  - )?(?:override )?([\w/]+):.*?\s#\s+(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {name: text.strip() for name, text in lines}

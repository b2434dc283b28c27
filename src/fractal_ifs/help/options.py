"""The options of Hydra's command line, which the commands train and theory take."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fractal_ifs.errors import ConfigError, short
from fractal_ifs.files import CONF


class Option(NamedTuple):
    """An option of Hydra's."""

    long: str
    short: str = ""
    value: str = ""  # what follows it, in brackets if nothing need follow
    doc: str = ""  # empty for those that are seldom needed: Hydra's own help has them


INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
HYDRA = (
    Option("--multirun", "-m", doc="a sweep: a list of values, curve=1,4, means a job for each"),
    Option("--cfg", "-c", "job|hydra|all", "show the config that is composed, and do nothing else"),
    Option("--resolve", doc="with --cfg: values in place of references to other keys"),
    Option("--package", "-p", "KEY", "with --cfg: this part of it"),
    Option("--config-dir", "-cd", "DIR", "take choices of groups from DIR/GROUP/*.yaml too"),
    Option("--config-name", "-cn", "NAME", "with --config-dir: begin with DIR/NAME.yaml, not the package's own"),
    Option("--info", "-i", "[WHAT]", f"what Hydra knows, WHAT of {', '.join(INFO)}"),
    Option("--help", "-h", doc="this help; --help NAME: that on a key or a group"),
    Option("--hydra-help", doc="Hydra's own options and keys"),
    Option("--version", doc="Hydra's version"),
    Option("--run", "-r"),
    Option("--config-path", "-cp", "DIR"),
    Option("--experimental-rerun", value="FILE"),
    Option("--shell-completion", "-sc"),
)
# As a help shows them.
OPTIONS = tuple(
    (f"{option.short + ', ' if option.short else ''}{option.long} {option.value}".strip(), option.doc)
    for option in HYDRA
    if option.doc
)


def split(arguments: Sequence[str]) -> Iterator[tuple[str, Option | None]]:
    """Every argument, with the option that it is or is the value of, None for others.

    Like Hydra it takes ``--cfg=job`` and the beginning of a long name, ``--multi``.
    Raises ConfigError for an unknown option, and where a value is missing or unknown.
    """
    waiting: Option | None = None  # an option, for its value
    for argument in arguments:
        # A word alone is a value too: what else may stand alone, the statements of theory, ends in a number.
        if waiting and (not waiting.value.startswith("[") or argument in INFO or argument.isalpha()):
            _check(waiting, argument)
            yield argument, waiting
            waiting = None
        elif argument.startswith("-") and argument.strip("-"):
            option, value = _option(argument)
            waiting = option if option.value and value is None else None
            if value is not None:
                _check(option, value)
            yield argument, option
        else:
            waiting = None
            yield argument, None
    if waiting and not waiting.value.startswith("["):
        _check(waiting, "")


def topics(arguments: Sequence[str]) -> list[str]:
    """The words beside --help that ask for a part of it: what is neither an option nor KEY=VALUE."""
    try:
        return [word for word, option in split(arguments) if not option and "=" not in word and word[:1] not in "~-"]
    except ConfigError:
        return []


def options_and_words(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command's options, in their long form, ``--cfg=job``, and its other words: Hydra 1.3 wants the options first.

    Raises ConfigError as ``split`` does.
    """
    options: list[str] = []
    words: list[str] = []
    before: Option | None = None  # an option without its value so far
    for argument, option in split(arguments):
        if option is None:
            words.append(argument)
        elif option is before:
            options[-1] += f"={argument}"
        else:
            _, value = _option(argument)
            options.append(option.long if value is None else f"{option.long}={value}")
            before = option if value is None and option.value else None
            continue
        before = None
    return [f"{each}=all" if each == "--info" else each for each in options], words


def _option(argument: str) -> tuple[Option, str | None]:
    """The option, and its value where that is part of the argument: --cfg=job or -cjob."""
    name, equals, value = argument.partition("=")
    for option in HYDRA:
        if name in (option.long, option.short):
            return option, value if equals else None
    if _is_key(name.lstrip("-")):  # before the beginning of a long name, as --experimental-rerun
        raise ConfigError(f"{short(argument)}: keys have no dashes here: {short(f'{name}={value}'.lstrip('-'))}")
    longer = [option for option in HYDRA if name.startswith("--") and option.long.startswith(name)]
    if len(longer) > 1:
        raise ConfigError(f"{short(argument)}: may be {' or '.join(option.long for option in longer)}")
    if longer:
        return longer[0], value if equals else None
    for option in HYDRA:
        if option.short == argument[:2] and option.value:
            return option, argument[2:]
    raise ConfigError(f"{short(argument)}: there is no such option; --help shows those that there are")


def _is_key(name: str) -> bool:
    """Whether it is a key or a group of one of the commands."""
    first = re.match(r"\w*", name)[0]  # pyright: ignore[reportOptionalSubscript]: it may be empty
    files = ("config", "plot", "theory")
    return bool(first) and (
        (CONF / first).is_dir()
        or any(re.search(rf"^{first}:", (CONF / f"{file}.yaml").read_text("utf-8"), re.MULTILINE) for file in files)
    )


def _check(option: Option, value: str) -> None:
    given = short(f"{option.long} {value}".rstrip())
    if not option.value:
        raise ConfigError(f"{given}: must be {option.long} alone")
    among = INFO if option.long == "--info" else option.value.split("|") if "|" in option.value else (value,)
    if not value or value not in among:
        raise ConfigError(f"{given}: must be {option.long} {'|'.join(INFO) if among is INFO else option.value}")

"""The options of Hydra's command line, which the commands train and theory take."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fractal_ifs.errors import ConfigError


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
    Option("--info", "-i", "[WHAT]", f"what Hydra knows, WHAT of {', '.join(INFO)}"),
    Option("--help", "-h", doc="this help"),
    Option("--hydra-help", doc="Hydra's own options and keys"),
    Option("--version", doc="Hydra's version"),
    Option("--run", "-r"),
    Option("--config-name", "-cn", "NAME"),
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
    """Every argument, with the option that it is or is the value of, None for others. Raises ConfigError where unknown.

    Like Hydra it takes ``--cfg=job`` and the beginning of a long name, ``--multi``.
    """
    before: Option | None = None  # an option that waits for its value
    for argument in arguments:
        if before and (not before.value.startswith("[") or argument in INFO):
            yield argument, before
            before = None
        elif argument.startswith("-") and argument.strip("-"):
            option, alone = _named(argument)
            yield argument, option
            before = option if option.value and alone else None
        else:
            yield argument, None
            before = None


def _named(argument: str) -> tuple[Option, bool]:
    """The option, and whether its name stands alone: not --cfg=job or -cjob."""
    name, equals, _ = argument.partition("=")
    for option in HYDRA:
        if name in (option.long, option.short):
            return option, not equals
    long = [option for option in HYDRA if name.startswith("--") and option.long.startswith(name)]
    short = [option for option in HYDRA if argument[:2] == option.short]
    if not (long or short):
        raise ConfigError(f"{argument}: there is no such option; --help shows those that there are")
    return (long or short)[0], bool(long) and not equals

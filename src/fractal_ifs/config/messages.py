"""Errors of Hydra, OmegaConf and this package, shown as one line instead of a traceback."""

import contextlib
import dataclasses
import difflib
import os
import re
import sys
import traceback
from collections.abc import Generator, Sequence

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from fractal_ifs.config.command import own_folders, split
from fractal_ifs.config.environment import check_environment
from fractal_ifs.config.keys import allowed
from fractal_ifs.config.lightning import OURS, trainer_flags
from fractal_ifs.config.named import Named, choices_with
from fractal_ifs.config.overrides import check_overrides, unreadable
from fractal_ifs.config.own_files import check_whole, fault
from fractal_ifs.config.run import KINDS, RunConfig
from fractal_ifs.config.trust import SAMPLERS
from fractal_ifs.config.words import CHOICES
from fractal_ifs.errors import ConfigError, message, short, told

MOST_MEANT = 3  # keys of one name that a refusal suggests


@contextlib.contextmanager
def refusals() -> Generator[None]:
    """As ``errors.told``, also for errors of Hydra. The environment and the command line are checked first."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its exceptions, so that we print them
    _, overrides = split(sys.argv[1:])
    with told():
        try:
            check_environment()
            check_overrides(sys.argv[1:])
            check_whole(sys.argv[1:])
            yield
        except (HydraException, OmegaConfBaseException) as error:  # before OSError, which some of Hydra's are
            sys.exit(f"error: {one_line(error, sys.argv[1:])}")
        except (ConfigError, OSError):
            raise
        except MemoryError as error:
            sys.exit(f"error: there is not enough memory on this machine ({short(error, 200) or 'MemoryError'})")
        except ValueError as error:
            if isinstance(error.__cause__, OSError):  # of logging, which can't open a run's log
                raise error.__cause__ from None
            if not str(error).startswith("Only one of --run"):  # how Hydra refuses `-m --cfg job`
                _refuse_hydras(error, overrides)
                raise
            sys.exit(f"error: {error}")
        except Exception as error:
            _refuse_hydras(error, overrides)
            raise


def _refuse_hydras(error: Exception, overrides: Sequence[str]) -> None:
    """End the process with one line if Hydra failed on a user's file or a key of its own, before we ran any code."""
    own = [short(text) for text in overrides if text.lstrip("+~").startswith("hydra")]
    found = fault(sys.argv[1:], own_folders(sys.argv[1:]))
    frames = [
        (frame.f_globals.get("__name__", ""), frame.f_code.co_name)
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    ours = [
        (module, name) for module, name in frames if module.startswith(("fractal_ifs.", "hydra_plugins.fractal_ifs"))
    ]
    begun = any(name != "main" and not module.startswith("fractal_ifs.config.") for module, name in ours)
    if found and not begun:
        sys.exit(f"error: {found}")
    rerun = dict(split(sys.argv[1:])[0]).get("--experimental-rerun")
    if rerun and not begun:
        sys.exit(
            f"error: --experimental-rerun={short(rerun)}: must be the file config.pickle of a job "
            f"({short(message(error), 200)})"
        )
    if own and not begun:
        sys.exit(f"error: {' '.join(own)}: can't be used ({short(message(error), 200)})")


def one_line(error: BaseException, words: Sequence[str] = ()) -> str:
    """An error of Hydra or OmegaConf in one line: the key as it was typed, the value, what is allowed.

    ``words``: those of the command line, which lead to files of the user's own, and may have a reference ``${...}``.
    """
    cause = error.__cause__
    if isinstance(cause, ConfigError):  # of a launcher's keys: Hydra says where it made the launcher
        return str(cause)
    if found := fault(words, own_folders(words)):
        return found
    if isinstance(error, MissingConfigException):
        return _no_such_file(error)
    if isinstance(error, OverrideParseException):
        return unreadable(error.override)
    if isinstance(error, InterpolationKeyError | InterpolationResolutionError):
        return _unresolved(error, words)
    if isinstance(error, MissingMandatoryValue):
        return f"{_full_key(error)}=???: this key has no default, give it a value"
    text = str(error)
    for pattern, found in _TOLD:
        if match := re.search(pattern, text, re.DOTALL):
            return found.format(*(short(group, 100) for group in match.groups()))
    if match := re.search(r"Could not override '([^']+)'(?:\.\n.*?use \+(.*))?", text, re.DOTALL):
        key, line = match.groups()
        inner = _full_key(cause)
        return _no_such_key(inner if inner.startswith(f"{key}.") else short(line or key, 100))
    if match := re.search(r"Error merging override (.*)", text, re.DOTALL):
        return _wrong_type(match[1], cause)
    if match := re.search(r"In '([\w-]+)/([\w-]+)': \w+ raised while composing config:\s*Value '(.*?)' of", text):
        key, value = _full_key(error) or _full_key(cause), match[3]
        return f"{match[1]}={match[2]} sets {_wrong_type(f'{key}={value}', cause or error)}"
    first = _plain(text)
    if cause is not None and (reason := _plain(str(cause).split("\n")[0])) and reason not in first:
        first += f": {reason}"
    key = _full_key(error) or _full_key(cause)
    return short(f"{first} (key {key})" if key and key not in first else first, 400)


# Errors of Hydra by their texts, and how they are told: the groups of the pattern take the places of {}.
_TOLD = [
    (
        r"In 'experiment/([\w-]+)': \w+ raised while composing config:\s*Cannot assign str to .*full_key: (\w+)",
        "experiment={0}: {1} must be keys with values; its defaults choose one by `override /{1}: NAME`",
    ),
    (
        r"In 'experiment/([\w-]+)': (?:Could not override|Invalid Defaults List override .* for) 'experiment/([\w-]+)@",
        "experiment={0}: experiment/{1} is not among its defaults; another group is chosen by `override /{1}: NAME`",
    ),
    (r"^hydra\.mode changed", "this experiment is a sweep: add -m"),  # Hydra 1.4 doesn't follow it
    (
        r"Ambiguous value for argument '(.*?)'\n1\. To use",
        "{}: several values are a sweep: add -m; one value that is a list needs brackets, [1,2]",
    ),
    (r"Sweep parameters '([^,()]*|[^=]*=\[.*\])' requires --multirun", "{}: its group has several values: add -m"),
    (r"Sweep parameters '(.*)' requires --multirun", "{}: several values are a sweep: add -m"),
    (r"Sweeping over Hydra's configuration is not supported : '(.*)'", "{}: must be one value, the same for all jobs"),
    (r"In '(\w+)/([\w-]+)'.*Key '(\w+)' not in", "{}={}: sets {}, which is not a key of this command"),
    (r"Could not delete from config\. '(.*)' does not exist", "~{}: there is no such key"),
    (r"Could not delete from config\. The value of '(.*?)' is", "~{}: must stand alone, without another value"),
    (r"Could not delete '(.*?)'\. No match", "~{}: is not chosen, so it can't be left out"),
    (r"An item is already at '(.*?)'.*?remove \+ prefix: '(.*?)'\n", "+{}: the key is there already, without +: {}"),
    (r"Override (.*) looks like a config group override", "{}: there is no such group"),
    (r"Additional config directory '(.*)' not found", "--config-dir={}: must be a directory"),
    (r"Primary config (?:module|directory) '?(.*?)'? not found", "--config-path: there is no {}"),
    (r"You must specify '(.*?)', e\.g", "{}=???: must be the name of one of its files"),
    (
        r"_target_ field type must be a string|does not have a `_target_` field",
        "hydra: _target_ must be a class's name",
    ),
    (r"Error locating target '(.*?)', set env", "{}: there is no such class or function (_target_)"),
]

# How OmegaConf says that a value is of the wrong type, and what it should have been.
_KINDS = [
    ("could not be converted to Integer", "a whole number"),
    ("could not be converted to Float", "a number"),
    ("is not a valid bool", "true or false"),
    ("Cannot convert .* to string", "text"),
    ("Cannot assign|not a subclass|not a dict", "keys with values"),
    ("is not a ListConfig|ListConfig", "a list"),
    ("is not Optional", "a value, not null"),
]


def _no_such_file(error: MissingConfigException) -> str:
    """A name that no file of a group has, with the names that are there."""
    name, options = error.missing_cfg_file or "", list(error.options or ())
    if match := re.search(r"Available options in '(.*?)':", str(error)):
        group = match[1]
        value = name.removeprefix(f"{group}/")
        near = difflib.get_close_matches(value, options, 3, 0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        if group == "hydra/sweeper" and value in SAMPLERS:
            hint = f"; pip install hydra-{value}-sweeper"
        return f"{group}={short(value)}: must be one of {', '.join(options)}{hint}"
    if str(error).startswith("Cannot find primary config"):
        return f"--config-name={short(name)}: there is no such file"
    if not name:
        return "--config-path: must be a directory with a config.yaml, or what --config-name says"
    return f"{short(name)}: there is no such file of this command's configuration"


def _unresolved(error: OmegaConfBaseException, words: Sequence[str]) -> str:
    """A reference ${...} to a key that isn't there, or to something that can't be read."""
    text = str(error)
    if match := re.match(r"ConfigError raised while resolving interpolation: (.*)", text):  # in a resolver of ours
        return match[1]
    if match := re.search(r"Interpolation key '(.*?)' not found", text):
        reference, reason = match[1], "there is no such key to refer to"
    elif match := re.search(r"Environment variable '(.*?)' not found", text):
        reference, reason = f"oc.env:{match[1]}", f"the environment variable {match[1]} is not set"
    elif match := re.search(r"Unsupported interpolation type (.*)", text.split("\n")[0]):
        reference, reason = f"{match[1]}:", "there is no such resolver"
    elif match := re.search(r"dereferencing interpolation '\$\{(.*?)\}': Value '(.*?)' .* converted to (\w+)", text):
        reference, kind = match[1], {"Integer": "a whole number", "Float": "a number"}.get(match[3], match[3])
        reason = f"must be {kind}, it is {short(match[2])}"
    elif match := re.search(r"dereferencing interpolation '\$\{(.*?)\}': Incompatible value 'None'", text):
        reference, reason = match[1], "must be a reference to a value, here there is none"
    else:
        reference, reason = "", short(text.split("\n")[0], 200)
    typed = next((word for word in words if "${" + reference in word), None)
    named = f"{_full_key(error)}=${{{reference}}}" if reference else _full_key(error)
    return f"{short(typed or named, 100)}: {reason}"


def _no_such_key(line: str) -> str:
    """``line``: KEY=VALUE or KEY."""
    key = line.partition("=")[0].lstrip("+")
    names = [f"{kind.PREFIX}{field.name}" for kind in KINDS for field in dataclasses.fields(kind) if field.metadata]
    if key.startswith("trainer."):
        names += _flags()
    near = [] if key in names or key.startswith("hydra") else _near(key, names)
    # A launcher or a sweeper has the keys that it has: with one more it can't be made.
    fixed = key.startswith(("hydra.launcher.", "hydra.sweeper.")) and not key.startswith("hydra.launcher.more.")
    # An argument of a class, which says itself what it takes once it is added.
    argument = key.startswith(("callbacks.", "logger.")) and key.count(".") > 1
    addable = argument or (key.startswith("hydra.") and not fixed)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; to add one: +{key}=..." if addable else ""
    named = [kind for kind in KINDS if issubclass(kind, Named) and key.startswith(kind.PREFIX)]
    if others := choices_with(key.rpartition(".")[2], tuple(named)):
        return f"{line}: goes with {' or '.join(others)}"
    return f"{line}: there is no such key{hint}"


# What keys of ours are called elsewhere.
_ELSEWHERE = {
    "lr": ("learning_rate", "init_lr"),
    "steps": ("epochs", "max_epochs", "num_epochs", "n_epochs", "iterations"),
    "depth": ("layers", "n_layers", "num_layers", "hidden_layers"),
    "width": ("units", "hidden_size", "hidden_dim", "n_hidden"),
}


def _near(key: str, names: Sequence[str]) -> list[str]:
    """What may have been meant by a key that there isn't: that key of a group, a group, or another key."""
    if "." not in key:
        if ours := [name for name, others in _ELSEWHERE.items() if key in others]:
            return ours
        within = dict.fromkeys(name for name in [*names, *_flags()] if name.endswith(f".{key}"))
        if 0 < len(within) <= MOST_MEANT:
            return list(within)
        if groups := difflib.get_close_matches(key, CHOICES, 1, 0.75):
            return [f"{groups[0]}=NAME"]
    group = key.rpartition(".")[0]
    near = difflib.get_close_matches(key, names, 3, 0.6)
    # of two keys of one group only what stands behind it can be alike
    alike = [name for name in near if name.rpartition(".")[0] != group or _alike(key, name)]
    return alike[:1]


def _alike(key: str, name: str) -> bool:
    one, other = (each.rpartition(".")[2] for each in (key, name))
    return difflib.SequenceMatcher(None, one, other).ratio() >= 0.6


def _flags() -> list[str]:
    """The flags of Lightning's Trainer that are keys here."""
    return [f"trainer.{flag}" for flag in trainer_flags() if flag not in OURS]


def _wrong_type(line: str, cause: BaseException | None) -> str:
    """An override whose value is of another type than its key."""
    key = line.partition("=")[0].lstrip("+")
    reason = str(cause).split("\n")[0]
    kind = allowed(RunConfig, key) or next((kind for pattern, kind in _KINDS if re.search(pattern, reason)), None)
    if "Cannot merge DictConfig with ListConfig" in reason:  # whichever of the two it was
        kind = "a list" if "={" in line else "keys with values"
    return f"{short(line, 100)}: must be {kind}" if kind else f"{short(line, 100)}: {_plain(reason)}"


def _full_key(error: BaseException | None) -> str:
    """The key that an error of OmegaConf is about, "" if it doesn't say."""
    found = getattr(error, "full_key", None) or ""
    match = re.search(r"full_key: (\S+)", str(error))
    return str(found or (match[1] if match else ""))


def _plain(text: str) -> str:
    """A text of Hydra on one line, without the parts that say where in its code it is."""
    text = re.sub(
        r"(Config s|S)earch path:.*|See https://\S+.*|, set env var HYDRA_FULL_ERROR=1.*", "", text, flags=re.DOTALL
    )
    text = re.sub(r"\s*(full_key|object_type|reference_type)[:=] ?.*", "", text)
    return " ".join(text.split())

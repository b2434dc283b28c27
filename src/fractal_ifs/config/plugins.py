"""The keys of a command's launcher and sweeper: their names are checked before Hydra makes these.

Hydra takes a key that it is told to add, ``+hydra.launcher.foo=2``, and then can't make the launcher; or without ``-m``
doesn't try. Of one that isn't there it says how to add it. The keys' values are checked by ``overrides`` and by the
launcher's own type, and a few here that the packages of others don't check before jobs begin.
"""

import contextlib
import copy
import difflib
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from inspect import signature
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from fractal_ifs.config.command import own_places, split
from fractal_ifs.config.keys import shown
from fractal_ifs.errors import ConfigError, short
from fractal_ifs.files import CONF

# How each sweeper of others is told that the largest value is the best.
_LARGEST: tuple[tuple[str, str, Any], ...] = (
    ("optuna", "direction", "maximize"),
    ("ax", "ax_config.experiment.minimize", False),
    ("nevergrad", "optim.maximize", True),
)
# Values that others' packages say nothing of before jobs begin: what is allowed, and how it is said.
_Allowed = tuple[Callable[[int], bool], str]
_AT_LEAST_1: _Allowed = (lambda value: value >= 1, "a whole number >= 1")
_ALLOWED: dict[tuple[str, str], _Allowed] = {
    ("optuna", "n_trials"): _AT_LEAST_1,
    ("optuna", "n_jobs"): _AT_LEAST_1,
    ("joblib", "n_jobs"): (lambda value: value != 0, "a whole number >= 1, or below 0: -1 is all cores"),
}
_OF_HYDRA = {"hydra/launcher": {"basic": ()}, "hydra/sweeper": {"basic": ("max_batch_size", "params")}}


def check_plugin_keys(arguments: Sequence[str], launcher: str, sweeper: str) -> None:
    """Raises ConfigError for a key that the chosen launcher or sweeper doesn't have, or a value that it can't use.

    Those in files of a user's own are left to Hydra: it isn't known here which keys they have.

    Args:
        arguments: the command line, after ``overrides.check_overrides`` has accepted it.
        launcher, sweeper: those of a command that names none.
    """
    options, words = split(arguments)
    overrides = OverridesParser.create().parse_overrides(words)
    # A user's own file may choose another launcher, which isn't known before all is composed.
    own = own_places(arguments) or any(name.startswith("--config-") for name, _ in options)
    for group, usual in (("hydra/launcher", launcher), ("hydra/sweeper", sweeper)):
        named = [str(override.value()) for override in overrides if override.key_or_group == group]
        named = named or _of_experiments(overrides, group)
        chosen = named[-1] if named else None if own else usual
        asked = [pair for override in overrides for pair in _keys(override, group.replace("/", "."))]
        if chosen is None or any(key.startswith("_") for key, _ in asked):  # _target_: another class than the choice's
            continue
        names, prefix = _names(group, chosen), group.replace("/", ".")
        for key, value in asked:
            fine, allowed = _ALLOWED.get((chosen, key), (lambda _: True, ""))
            if isinstance(value, int) and not fine(value):
                raise ConfigError(f"{prefix}.{key}={value}: must be {allowed}")
            if names is not None and key not in names:
                near = difflib.get_close_matches(key, names, 1, 0.7)
                has = f"{group}={chosen} has {', '.join(names) or 'none'}"
                hint = f"did you mean {near[0]}?" if near else has
                raise ConfigError(f"{prefix}.{short(key)}={shown(value)}: there is no such key; {hint}")


def maximize_accuracy() -> None:
    """Let the sweepers of others look for the largest test accuracy, unless a command or its files say otherwise.

    By themselves they take what a job returns for a loss, and look for the worst network. What Hydra knows of them
    belongs to the whole process, so this is for one that is the command's own.
    """
    Plugins.instance()  # finds the packages
    store = ConfigStore.instance()
    for sweeper, key, value in _LARGEST:
        if f"{sweeper}.yaml" in store.list("hydra/sweeper"):
            node: Any = store.load(f"hydra/sweeper/{sweeper}.yaml").node
            if OmegaConf.select(node, key) is not None:
                OmegaConf.update(node, key, value)
                again: Any = {"replace": True} if "replace" in signature(store.store).parameters else {}  # Hydra 1.4
                store.store(group="hydra/sweeper", name=sweeper, node=node, provider="fractal_ifs", **again)


@contextlib.contextmanager
def maximizing() -> Generator[None]:
    """Within: as after ``maximize_accuracy``. Afterwards Hydra knows the sweepers of others as it did."""
    Plugins.instance()  # finds the packages
    sweepers: Any = ConfigStore.instance().repo["hydra"]["sweeper"]
    before = copy.deepcopy(sweepers)
    maximize_accuracy()
    try:
        yield
    finally:
        sweepers.update(before)


def _keys(override: Override, prefix: str) -> list[tuple[str, Any]]:
    """The names of keys below ``prefix`` that an override sets, and their values."""
    name, value = override.key_or_group, override.value()
    if override.is_delete():
        return []
    if name == prefix and isinstance(value, Mapping):
        return [(str(key), each) for key, each in value.items()]
    return [(name.removeprefix(f"{prefix}.").split(".")[0], value)] if name.startswith(f"{prefix}.") else []


def _of_experiments(overrides: Sequence[Override], group: str) -> list[str]:
    """What the experiments of a command choose of a group, those in conf/."""
    found: list[str] = []
    for override in overrides:
        value = override.value() if override.key_or_group == "experiment" else None
        for name in value if isinstance(value, list) else [value]:
            path = CONF / "experiment" / f"{name}.yaml"
            if re.fullmatch(r"[\w-]+", str(name)) and path.is_file():
                for entry in yaml.safe_load(path.read_bytes()).get("defaults", []):
                    found += [str(entry[key]) for key in entry if key == f"override /{group}"]
    return found


def _names(group: str, choice: str) -> Sequence[str] | None:
    """The names of the keys of a choice. None where it is a user's own file."""
    path = CONF / group / f"{choice}.yaml"
    if choice in _OF_HYDRA[group]:
        return _OF_HYDRA[group][choice]
    if not re.fullmatch(r"[\w-]+", choice) or not path.is_file():
        return _of_others(group, choice)
    return [str(name) for name in yaml.safe_load(path.read_bytes()) if name != "_target_"]


def _of_others(group: str, choice: str) -> Sequence[str] | None:
    """The names of the keys of a choice that an installed package has told Hydra of."""
    Plugins.instance()  # finds the packages
    store = ConfigStore.instance()
    if f"{choice}.yaml" not in store.list(group):
        return None
    node: Any = store.load(f"{group}/{choice}.yaml").node
    return [str(name) for name in node if name not in ("_target_", "defaults")]

"""Composes the configs of a sweep's jobs as Hydra does, but reads and merges each choice of files only once.

Hydra reads some 20 files for every job, which takes 30 to 100 ms. Most jobs of a sweep differ only in values
(``width=20``), and Hydra sets those last, on the composed config. So we compose once and set them on copies. Others
choose one file of a group or another (``curve=4``), which mostly changes that group's node alone. So of a grid over
several groups each choice is composed once, beside the first choice of the others, and its node put in place.
"""

import copy
import re
from collections.abc import Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fractal_ifs.config.command import composed_folders
from fractal_ifs.config.names import run_name
from fractal_ifs.errors import ConfigError
from fractal_ifs.files import CONF

# hydra.*: Hydra reads these once, before any job; our launcher the logging too.
OF_A_SWEEP = ("launcher", "sweeper", "callbacks", "searchpath", "hydra_logging", "job_logging", "verbose")


class Composer:
    """``composer(overrides)`` returns the same as ``loader.load_sweep_config(master, overrides)``, ten times as fast.

    Raises what Hydra raises, and ConfigError where a job's choice of files sets what belongs to the whole sweep.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig):
        self.loader, self.master = loader, master
        self.composed: dict[tuple[str, ...], DictConfig] = {}
        self.groups: dict[str, bool] = {}
        self.first: dict[tuple[str, ...], tuple[str, ...]] = {}  # by the groups that jobs choose, the first choices
        self.alone: dict[tuple[str, ...], bool] = {}  # whether such choices differ from the first in their node alone

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        values = [override for override in parsed if self._sets_value(override)]
        if _in_order(values, [override for override in parsed if override not in values]):
            return self.loader.load_sweep_config(self.master, list(overrides))
        files = tuple(override.input_line or "" for override in parsed if override not in values)
        config = self._put_together(files) or copy.deepcopy(self._composed(files))
        try:
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:
            return self.loader.load_sweep_config(self.master, list(overrides))  # raises Hydra's own error
        words = [override.input_line or "" for override in parsed]
        config.hydra.overrides.task = words
        if not OmegaConf.is_interpolation(config.hydra.job, "override_dirname"):  # as it is since Hydra 1.4
            how = config.hydra.job.config.override_dirname
            config.hydra.job.override_dirname = run_name(words, how.exclude_keys, how.item_sep, how.kv_sep)
        OmegaConf.copy_cache(from_config=self.master, to_config=config)
        return config

    def _put_together(self, files: tuple[str, ...]) -> DictConfig | None:
        """The config of choices that were composed one by one. None where these may depend on each other."""
        groups = tuple(word.partition("=")[0] for word in files)
        first = self.first.setdefault(groups, files)
        differ = [number for number, word in enumerate(files) if word != first[number]]
        if len(differ) < 2 or len(set(groups)) < len(groups) or composed_folders(self.master) != [CONF]:
            return None
        singles = {groups[n]: (*first[:n], files[n], *first[n + 1 :]) for n in differ}
        if not all(self._alone(group, single, first) for group, single in singles.items()):
            return None
        config = copy.deepcopy(self._composed(first))
        with open_dict(config):
            for group, single in singles.items():
                config[group] = self._composed(single)[group]
                config.hydra.runtime.choices[group] = self._composed(single).hydra.runtime.choices[group]
        return config

    def _alone(self, group: str, single: tuple[str, ...], first: tuple[str, ...]) -> bool:
        """Whether a choice of a group changes that group's node alone."""
        if single not in self.alone:
            there = group in self.master and group in self._composed(first) and group in self._composed(single)
            self.alone[single] = there and self._others(group, single) == self._others(group, first)
        return self.alone[single]

    def _others(self, group: str, files: tuple[str, ...]) -> Any:
        """A composed config without what a choice of the group is to change."""
        found: Any = OmegaConf.to_container(self._composed(files))
        del found[group], found["hydra"]["overrides"], found["hydra"]["job"]["override_dirname"]
        found["hydra"]["runtime"]["choices"].pop(group, None)
        return found

    def _composed(self, files: tuple[str, ...]) -> DictConfig:
        if files not in self.composed:
            self.composed[files] = self._compose(files)
        return self.composed[files]

    def _compose(self, files: Sequence[str]) -> DictConfig:
        try:
            config = self.loader.load_sweep_config(self.master, list(files))
        except HydraException as error:  # Hydra 1.4 looks at two of them itself
            if not (found := re.match(r"'hydra[./](\w+)' must be .* before the sweep starts", str(error))):
                raise
            raise self._of_a_sweep(files, found[1]) from None
        # Unresolved: what ${steps} or ${hydra.sweep.dir} refers to may be among the values, which aren't set yet.
        chosen: Any = OmegaConf.to_container(config.hydra)
        of_the_sweep: Any = OmegaConf.to_container(self.master.hydra)
        for name in OF_A_SWEEP:
            if chosen[name] != of_the_sweep[name]:
                raise self._of_a_sweep(files, name)
        return config

    def _of_a_sweep(self, files: Sequence[str], name: str) -> ConfigError:
        swept = [word for word in files if word not in self.master.hydra.overrides.task]
        return ConfigError(f"{' '.join(swept)}: sets hydra.{name}, which belongs to a whole sweep: give one at a time")

    def _sets_value(self, override: Override) -> bool:
        """Whether an override sets one key of the composed config, without changing which files are read."""
        if override.type != OverrideType.CHANGE or override.package or override.is_hydra_override():
            return False
        if override.is_sweep_override():
            return False
        key = override.key_or_group
        if key not in self.groups:
            chosen = key in self.master.hydra.runtime.choices
            self.groups[key] = chosen or bool(self.loader.get_group_options(key))
        return isinstance(override.value(), dict) or not self.groups[key]


def _in_order(values: Sequence[Override], others: Sequence[Override]) -> bool:
    """Whether words of both kinds are of one key, as ``width=6 ++width=8``: then their order matters."""
    changing = [f"{each.key_or_group}." for each in others if each.type != OverrideType.CHANGE]
    return any(
        key.startswith(f"{value.key_or_group}.") or f"{value.key_or_group}.".startswith(key)
        for key in changing
        for value in values
    )

"""Composes the configs of a sweep's jobs as Hydra does, but reads and merges each choice of files only once.

Hydra reads some 20 files for every job, which takes 30 ms or more. Most jobs of a sweep differ only in values
(``width=20``), and Hydra sets those last, on the composed config. So we compose once and set them on copies.
"""

import copy
from collections.abc import Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf


class Composer:
    """``composer(overrides)`` returns the same as ``loader.load_sweep_config(master, overrides)``, ten times as fast.

    Raises what Hydra raises.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig):
        self.loader, self.master = loader, master
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        loader = self.loader
        if not isinstance(loader, ConfigLoaderImpl):
            return loader.load_sweep_config(self.master, list(overrides))
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        loader.validate_sweep_overrides_legal(parsed, RunMode.RUN, from_shell=True)
        values = [override for override in parsed if self._sets_value(override, loader)]
        files = tuple(override.input_line or "" for override in parsed if override not in values)
        if files not in self.composed:
            self.composed[files] = loader.load_sweep_config(self.master, list(files))
        config = copy.deepcopy(self.composed[files])
        # Hydra has no public function for this step of its own ``load_sweep_config``.
        loader._apply_overrides_to_config(values, config)  # pyright: ignore[reportPrivateUsage]
        config.hydra.overrides.task = [override.input_line for override in parsed]
        names = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(
            parsed, names.exclude_keys, item_sep=names.item_sep, kv_sep=names.kv_sep
        )
        OmegaConf.copy_cache(from_config=self.master, to_config=config)
        return config

    def _sets_value(self, override: Override, loader: ConfigLoaderImpl) -> bool:
        """Whether an override sets one key of the composed config, without changing which files are read."""
        if override.is_hydra_override() or override.is_add() or override.is_force_add() or override.is_delete():
            return False
        key = override.key_or_group
        group = key in self.master.hydra.runtime.choices or loader.repository.group_exists(key)
        return isinstance(override.value(), dict) or not group

"""Composes the configs of a sweep's jobs as Hydra does, but reads each file of a choice once.

Hydra reads some 20 files for every job, which takes 30 to 100 ms. Most jobs of a sweep differ only in values
(``width=20``), and Hydra sets those last, on the composed config. So we compose once and set them on copies. Others
choose one file of a group or another (``curve=4``). Where such a file says no more than what stands in the group's
node, and no other file says anything of that, we compose once without a choice (``~curve``), and put the file's content
into the node of a copy.
"""

import pickle
import re
from collections.abc import Callable, Sequence, Set
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from fractal_ifs.config.names import run_name
from fractal_ifs.errors import ConfigError

# hydra.*: Hydra reads these once, before any job; our launcher the logging too.
OF_A_SWEEP = ("launcher", "sweeper", "callbacks", "searchpath", "hydra_logging", "job_logging", "verbose")


# What differs in the node ``hydra`` of jobs with the same choices: what is written below, and by Hydra's launchers.
OF_A_JOB = {"job": ("id", "num", "override_dirname"), "overrides": ("task",), "runtime": ("output_dir",)}
# The name and the directory of a sweep as conf/config.yaml has them: the same for all jobs that set no name.
NAME, DIRECTORY = "${fractal_ifs.sweep_name:}", "${fractal_ifs.sweep_directory:${sweep}}"


class Lent(NamedTuple):
    """A config that may be given to the next job, too, with that one's values: it is read before."""

    config: DictConfig
    hydra: dict[str, Any]  # its node of that name as plain values, before OF_A_JOB was written

    def of_job(self) -> dict[str, Any]:
        """The node ``hydra`` of this job as plain values; what its jobs share are the same objects."""
        found = dict(self.hydra)
        for name, keys in OF_A_JOB.items():
            own: Any = OmegaConf.to_container(OmegaConf.masked_copy(self.config.hydra[name], list(keys)))
            found[name] = self.hydra[name] | own
        return found


class Composer:
    """``composer(overrides)`` returns the same as ``loader.load_sweep_config(master, overrides)``, ten times as fast.

    ``composer.lend(overrides)`` takes a third of that. Both raise what Hydra raises, and ConfigError where a job's
    choice of files sets what belongs to the whole sweep.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig):
        self.loader, self.master = loader, master
        self.words: dict[str, Override] = {}
        self.groups: dict[str, bool] = {}
        self.composed: dict[tuple[str, ...], DictConfig] = {}
        self.pickled: dict[tuple[str, ...], bytes] = {}  # the same, of which copies are made: three times as fast
        self.seen: set[tuple[str, ...]] = set()
        self.lent: dict[tuple[tuple[str, ...], tuple[str, ...]], Lent] = {}  # by choices, and keys that are set
        self.contents: dict[tuple[str, str], DictConfig | None] = {}
        self.empty: dict[tuple[str, ...], bool] = {}
        self.apart: set[str] = set()  # groups whose choices say more than what stands in their node

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        values, files = self._apart(overrides)
        return self._with(files, values, overrides, self._of)

    def lend(self, overrides: Sequence[str]) -> Lent:
        """The same config, in which this job's values are written over those of the last one that set the same keys."""
        values, files = self._apart(overrides)
        keys = tuple(override.key_or_group for override in values)
        # A mapping would be merged into the last one's, and a key within another is gone when that is set.
        if files is None or _nested(keys) or any(isinstance(override.value(), dict) for override in values):
            return _lent(self(overrides))

        def again(files: tuple[str, ...]) -> DictConfig:
            if (files, keys) not in self.lent:
                self.lent[files, keys] = _lent(self._of(files), named="sweep" in keys)
            config, first = self.lent[files, keys]
            config.hydra.job.override_dirname = first["job"]["override_dirname"]  # the last one's may have had a ${}
            return config

        config = self._with(files, values, overrides, again)
        found = self.lent.get((files, keys))
        return found if found and found.config is config else _lent(config)

    def _apart(self, overrides: Sequence[str]) -> tuple[list[Override], tuple[str, ...] | None]:
        """The overrides that set a value, and the words of the others. None where only Hydra can take both."""
        parsed = [self._parsed(word) for word in overrides]
        values = [override for override in parsed if self._sets_value(override)]
        others = [override for override in parsed if override not in values]
        if _in_order(values, others) or any(override.is_sweep_override() for override in parsed):
            return values, None
        return values, tuple(override.input_line or "" for override in others)

    def _with(
        self,
        files: tuple[str, ...] | None,
        values: Sequence[Override],
        overrides: Sequence[str],
        config_of: Callable[[tuple[str, ...]], DictConfig],
    ) -> DictConfig:
        """The config of these choices, by ``config_of``, with these values."""
        if files is None:
            return self.loader.load_sweep_config(self.master, list(overrides))
        try:
            config = config_of(files)
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:
            return self.loader.load_sweep_config(self.master, list(overrides))  # raises Hydra's own error
        words = [word for word in overrides if not self._parsed(word).is_hydra_override()]
        config.hydra.overrides.task = words
        if not OmegaConf.is_interpolation(config.hydra.job, "override_dirname"):  # as it is since Hydra 1.4
            how = config.hydra.job.config.override_dirname
            config.hydra.job.override_dirname = run_name(words, how.exclude_keys, how.item_sep, how.kv_sep)
        OmegaConf.copy_cache(from_config=self.master, to_config=config)
        return config

    def _parsed(self, word: str) -> Override:
        if word not in self.words:
            [self.words[word]] = OverridesParser.create().parse_overrides([word])
        return self.words[word]

    def _of(self, files: tuple[str, ...]) -> DictConfig:
        """A config of these choices, which its job may change."""
        if files not in self.pickled and (config := self._put_together(files)) is not None:
            if files not in self.seen:  # most are of one job, or of many
                self.seen.add(files)
                return config
            self.pickled[files] = pickle.dumps(config)
        return self._copy(files)

    def _put_together(self, files: tuple[str, ...]) -> DictConfig | None:
        """The config of choices, composed without those whose files set their group's node alone, which are put in it.

        None where there are no such choices.
        """
        choices = {group: choice for group, _, choice in (word.partition("=") for word in files)}
        contents = {group: self._content(group, choice) for group, choice in choices.items()}
        names = {group for group, content in contents.items() if content is not None} - self.apart
        if len(choices) < len(files):  # one group twice
            return None
        if names and not self._empty(files, names):
            self.apart |= {group for group in names if not self._empty(files, {group})}
            names -= self.apart
        if not names or not self._empty(files, names):
            return None
        config = self._copy(_without(files, names))
        chosen = {**config.hydra.runtime.choices, **{group: choices[group] for group in names}}
        order = {name: place for place, name in enumerate(self.master.hydra.runtime.choices)}
        with open_dict(config):
            for group in names:
                OmegaConf.update(config, group, contents[group], merge=True)
            names_in_order = sorted(chosen, key=lambda name: order.get(name, len(order)))
            config.hydra.runtime.choices = {name: chosen[name] for name in names_in_order}
        return config

    def _content(self, group: str, choice: str) -> DictConfig | None:
        """What a choice's file puts into the group's node. None where that isn't all that it does: it has a list of
        defaults, or a header; or where there is no such file, or more than one.
        """
        if (group, choice) not in self.contents:
            self.contents[group, choice] = self._read(group, choice)
        return self.contents[group, choice]

    def _read(self, group: str, choice: str) -> DictConfig | None:
        there = group in self.master and group in self.master.hydra.runtime.choices
        if not there or not re.fullmatch(r"\w+", group) or not re.fullmatch(r"\w+", choice):
            return None
        sources = [source for source in self.loader.get_sources() if source.is_config(f"{group}/{choice}")]
        if len(sources) != 1 or sources[0].scheme() != "file":
            return None
        try:
            found = sources[0].load_config(f"{group}/{choice}")
        except Exception:  # Hydra says what is wrong with a file
            return None
        content: Any = found.config
        plain = OmegaConf.is_dict(content) and "defaults" not in content and not found.header.get("package")
        return content if plain else None

    def _empty(self, files: tuple[str, ...], groups: Set[str]) -> bool:
        """Whether these groups' nodes have nothing where nothing is chosen, and no other choice follows from theirs.

        One that does, as ``protocol: ${data}``, Hydra can't compose.
        """
        bare = _without(files, groups)
        if bare not in self.empty:
            self.empty[bare] = self._nothing(bare, groups)
        return self.empty[bare]

    def _nothing(self, bare: tuple[str, ...], groups: Set[str]) -> bool:
        try:
            config = self._composed(bare)
        except Exception:  # of any kind where a word sets a key of a node that has none
            return False
        # That a node is there is the schema's doing. With something in it, another file sets some of its keys.
        return all(OmegaConf.is_missing(config, group) or config[group] == {} for group in groups)

    def _copy(self, files: tuple[str, ...]) -> DictConfig:
        if files not in self.pickled:
            self.pickled[files] = pickle.dumps(self._composed(files))
        return pickle.loads(self.pickled[files])

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
            self.groups[key] = chosen or self._has_files(key)
        return isinstance(override.value(), dict) or not self.groups[key]

    def _has_files(self, group: str) -> bool:
        """Whether there is a choice in this group. ``get_group_options`` says so too, but copies all sources first."""
        sources = [source for source in self.loader.get_sources() if source.is_group(group)]
        return any(source.list(group, ObjectType.CONFIG) for source in sources)


def _without(files: tuple[str, ...], groups: Set[str]) -> tuple[str, ...]:
    """The words, with nothing chosen of these groups."""
    named = [word.partition("=")[0] for word in files]
    return tuple(f"~{group}" if group in groups else word for group, word in zip(named, files, strict=True))


def _lent(config: DictConfig, named: bool = True) -> Lent:
    """``named``: jobs set the sweep's name. If not, it and the directory are found once: to read a ${} takes long."""
    plain: Any = OmegaConf.to_container(config.hydra, enum_to_str=True)
    own: Any = "sweep" in config and OmegaConf.to_container(config, resolve=False)
    ours = own and own["sweep"] == NAME and plain["sweep"]["dir"] == DIRECTORY
    if not named and ours and "${" not in config.sweep:  # of depth=${seed}: OmegaConf would read that once more
        config.sweep = config.sweep
        with read_write(config.hydra):
            config.hydra.sweep.dir = config.hydra.sweep.dir
    return Lent(config, plain)


def _nested(keys: Sequence[str]) -> bool:
    return any(one.startswith(f"{other}.") for one in keys for other in keys)


def _in_order(values: Sequence[Override], others: Sequence[Override]) -> bool:
    """Whether words of both kinds are of one key, as ``width=6 ++width=8``: then their order matters."""
    changing = [f"{each.key_or_group}." for each in others if each.type != OverrideType.CHANGE]
    return any(
        key.startswith(f"{value.key_or_group}.") or f"{value.key_or_group}.".startswith(key)
        for key in changing
        for value in values
    )

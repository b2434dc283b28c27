"""What Hydra is told of this package: the schema of a run's keys, resolvers, and how words are read.

A process of ours is told once, by ``register``. In another application's process, where ``run`` or a picture may be
asked for, Hydra is told for the time of ``borrowed``, and is then as it was.
"""

import contextlib
import dataclasses
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from functools import partial, partialmethod
from typing import Any, Literal, get_origin, get_type_hints

import hydra
import omegaconf
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase
from omegaconf import MISSING, DictConfig, OmegaConf

from fractal_ifs import streams
from fractal_ifs.config.names import (
    is_of,
    of_logger,
    run_directory,
    run_name,
    sweep_directory,
    sweep_name,
    told_apart,
    unquoted,
)
from fractal_ifs.config.plugins import maximizing
from fractal_ifs.config.run import GROUPS, NAMED, RunConfig
from fractal_ifs.config.words import Parse, read

SCHEMA = "fractal_ifs_schema"  # as conf/config.yaml calls it. Hydra's ConfigStore belongs to all applications

_BORROWING = threading.RLock()  # what Hydra is told is told to the whole process

# Since 1.4 Hydra behaves in one way only, and warns of the argument that chose it before.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}

# The name of OmegaConf 2.4 is another function in 2.3, and that of 2.3 is deprecated in 2.4.
_NAME = "register_new_resolver" if omegaconf.__version__.startswith("2.3") else "register_resolver"
register_resolver: Any = getattr(OmegaConf, _NAME)


def _schema() -> type:
    hints = get_type_hints(RunConfig)
    types = {field.name: hints[field.name] for field in dataclasses.fields(RunConfig)}
    groups: dict[str, Any] = {name: Any if name in NAMED else dict[str, Any] for name in GROUPS}
    others: dict[Any, Any] = {Literal: str, tuple: Any}  # ``RunConfig.parse`` says more of a bad list than Hydra
    fields = [
        (name, groups[name] if name in groups else others.get(get_origin(kind), kind)) for name, kind in types.items()
    ]
    made = dataclasses.make_dataclass("Schema", [(name, kind, _default(name)) for name, kind in fields])
    made.__module__ = __name__  # so that configs can be pickled
    return made


def _default(name: str) -> Any:
    """A field without a value, but for the group that may be left out."""
    if name == "callbacks":
        return dataclasses.field(default_factory=dict[str, Any])
    return dataclasses.field(default=MISSING)


# The structured config of a run's keys. With it, Hydra refuses any other key and any value of the wrong type. A group
# is a plain mapping here, because users may add files to it: ``RunConfig.parse`` checks its keys later.
Schema = _schema()


class JobFunction:
    """What Hydra calls for each job. A process that is sent it, by a launcher of others, becomes ours with it.

    Args:
        call: a function of an importable module.
        words: those of the command, which name its sweep.
    """

    def __init__(self, call: Callable[[DictConfig], Any], words: Sequence[str] = ()):
        self.call, self.words = call, tuple(words)
        self.__module__ = call.__module__  # which Hydra names the job after

    def __call__(self, config: DictConfig) -> Any:
        return self.call(config)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self.call, self.words)


def _received(call: Callable[[DictConfig], Any], words: Sequence[str]) -> JobFunction:
    streams.outlast()
    register(words)
    return JobFunction(call, words)


def register_configs() -> None:
    """Tell Hydra of this process what the configs need, for good: for its Compose API or an application of one's own.

    After it, ``initialize_config_module("fractal_ifs.conf")`` and ``compose("config", ["width=20"])``. Words are read
    as on our command line. ``run``, ``sweep`` and the commands need no call.
    """
    register()


def register(words: Sequence[str] = ()) -> None:
    """Make this process ours, for good. ``words`` are those of its command, which name a sweep."""
    _tell_hydra(_resolvers(words))
    # Of Hydra 1.4, about callbacks that are our own. Those that a user adds are still told.
    ours = r"[\s\S]*(fractal_ifs_launcher|theorems\.refuse)\.Refuse"
    warnings.filterwarnings("ignore", message=ours, category=UserWarning)


class Loan:
    """This process's Hydra while it is ours.

    Args:
        searching: the sweepers of others look for the largest accuracy meanwhile.
    """

    def __init__(self, searching: bool):
        self.ours: tuple[Any, ...] = ()
        self.searching = contextlib.ExitStack() if searching else None

    def take(self) -> None:
        """Tell Hydra of our configs, and go on with the session that there was when it was given back, if it was."""
        session, job, version = GlobalHydra.instance(), JobRuntime.instance(), VersionBase.instance()
        self.session, self.theirs = session, (session.hydra, job.get("name"), version.version_base)
        self.parse, self.to_tell = vars(OverridesParser)["parse_overrides"], not _is_ours()
        session.clear()
        if self.to_tell:
            _tell_hydra(_resolvers(()), threading.get_ident())
        if self.searching:
            self.searching.enter_context(maximizing())
        if self.ours:
            _resume(*self.ours)

    def give_back(self) -> None:
        """Let Hydra be as it was."""
        session, job, version = GlobalHydra.instance(), JobRuntime.instance(), VersionBase.instance()
        self.ours = session.hydra, job.get("name"), version.version_base
        if self.searching:
            self.searching.close()
        if self.to_tell:
            OverridesParser.parse_overrides = self.parse
            ConfigStore.instance().repo.pop(f"{SCHEMA}.yaml", None)
            for resolver in _resolvers(()):
                OmegaConf.clear_resolver(resolver)
        self.session.hydra = self.theirs[0]  # Hydra's own way back leaves a copy of it
        _resume(*self.theirs)

    @contextlib.contextmanager
    def interrupted(self) -> Generator[None]:
        """Within: Hydra is as it was, and other threads may borrow it."""
        self.give_back()
        _BORROWING.release()
        try:
            yield
        finally:
            _BORROWING.acquire()
            self.take()


def _resume(hydra: Any, name: str, version: Any) -> None:
    GlobalHydra.instance().hydra = hydra
    JobRuntime.instance().set("name", name)
    VersionBase.instance().version_base = version


@contextlib.contextmanager
def borrowed(searching: bool = False) -> Generator[Loan]:
    """Within: Hydra has no session, and knows our configs. Afterwards it is as it was, whoever's process this is."""
    with _BORROWING:
        loan = Loan(searching)
        loan.take()
        try:
            yield loan
        finally:
            loan.give_back()


def _tell_hydra(resolvers: dict[str, Callable[..., str]], thread: int | None = None) -> None:
    """``thread``: the one whose words are read our way. None: all of them are."""
    if f"{SCHEMA}.yaml" not in ConfigStore.instance().repo:
        ConfigStore.instance().store(name=SCHEMA, node=Schema, provider="fractal_ifs")
    if not _is_ours():
        ours = partialmethod(_read, OverridesParser.parse_overrides, thread)
        OverridesParser.parse_overrides = ours  # pyright: ignore[reportAttributeAccessIssue]
    for name, resolve in resolvers.items():
        # The sweep's name is cached, so that every job of it gets the name made from the sweep's own words.
        register_resolver(name, resolve, use_cache=name.endswith("sweep_name"), replace=True)


def _is_ours() -> bool:
    return isinstance(vars(OverridesParser)["parse_overrides"], partialmethod)


def _read(parser: OverridesParser, parse: Parse, thread: int | None, overrides: list[str]) -> list[Override]:
    """As our grammar has it, or in the other threads of an application that has lent us its process, as Hydra's."""
    return read(parse, parser, overrides) if thread in (None, threading.get_ident()) else parse(parser, overrides)


def _resolvers(words: Sequence[str]) -> dict[str, Callable[..., str]]:
    """The resolvers of conf/config.yaml."""
    return {
        "fractal_ifs.sweep_name": lambda: sweep_name(words),
        "fractal_ifs.sweep_directory": sweep_directory,
        "fractal_ifs.run_directory": partial(_run_directory, told_apart(words)),
    }


def _run_directory(told: set[str], parent: str, otherwise: str = "", *, _root_: DictConfig) -> str:
    """The name of a run's directory below ``parent``.

    ``otherwise``: that of a run without words, where no experiment and no other config than ours gives it one. Without
    it such a run lies in ``parent`` itself, as runs of earlier versions do.
    """
    how = _root_.hydra.job.config.override_dirname
    left_out = [key for key in how.exclude_keys if key not in told]
    words = list(_root_.hydra.overrides.task)
    every = [unquoted(word) for word in words if not word.startswith("hydra.")]  # as where Python names a searchpath
    plain = [word for word in every if not of_logger(word)]
    name, *formers = (run_name(each, left_out, how.item_sep, how.kv_sep) for each in (plain, every, words))
    experiment = str(_root_.hydra.runtime.choices.get("experiment") or "null")
    if not name and otherwise and not is_of(f"{parent}/.hydra/hydra.yaml", experiment):
        config = str(_root_.hydra.job.config_name).removesuffix(".yaml")
        name = run_name(plain, [key for key in left_out if key != "experiment"], how.item_sep, how.kv_sep)
        name = name or (otherwise if config == "config" else config)
    return run_directory(parent, name, *formers)

"""How Hydra composes a config from conf/, and how the typed ``RunConfig`` is made from it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_origin, get_type_hints

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import MISSING, DictConfig, OmegaConf

from fractal_ifs.config.machine import check_gpus, check_memory
from fractal_ifs.config.messages import one_line
from fractal_ifs.config.run import GROUPS, RunConfig
from fractal_ifs.errors import ConfigError
from fractal_ifs.files import CONF

# Keys that are left out of a sweep's name, as conf/config.yaml leaves them out of a run's: sweeps keep their names.
NOT_IN_NAMES = ("sweep", "overwrite", "kept", "engine", "workers", "logger", "experiment", "data.dir", "data.url")


def schema() -> type:
    """The structured config of a run's keys. With it, Hydra refuses any other key and any value of the wrong type.

    Here a group is a plain mapping, because users may add files to it. ``RunConfig.parse`` checks its keys later.
    """
    hints = get_type_hints(RunConfig)
    types = {field.name: hints[field.name] for field in dataclasses.fields(RunConfig)}
    fields = [
        (name, dict[str, Any] if name in GROUPS else str if get_origin(kind) is Literal else kind)
        for name, kind in types.items()
    ]
    return dataclasses.make_dataclass(
        "Schema", [(name, kind, dataclasses.field(default=MISSING)) for name, kind in fields]
    )


def register(overrides: Sequence[str] = ()) -> None:
    """Tell Hydra the schema and the resolver ``sweep_name``, which names a sweep after its ``overrides``."""
    _numbers_name_groups()
    ConfigStore.instance().store(name="schema", node=schema(), provider="fractal_ifs")
    if OmegaConf.has_resolver("sweep_name") and not overrides:
        return
    # Cached, so that every job of a sweep gets the name made from the sweep's own overrides.
    OmegaConf.register_new_resolver("sweep_name", lambda: _sweep_name(overrides), use_cache=True, replace=True)


def _numbers_name_groups() -> None:
    """Let ``curve=1`` choose conf/curve/1.yaml. Hydra reads 1 as a number and refuses it as a group's choice."""
    original = OverridesParser.parse_overrides
    if getattr(original, "numbers_name_groups", False):
        return

    def parse_overrides(self: OverridesParser, overrides: list[str]) -> list[Override]:
        parsed = original(self, overrides)
        for override in parsed:
            # Hydra's public ``value()`` can't be set, and it converts what it returns.
            key, value = override.key_or_group, override._value  # pyright: ignore[reportPrivateUsage]
            if key in GROUPS and type(value) is int:
                override._value = str(value)  # pyright: ignore[reportPrivateUsage]
            elif not key or (key in GROUPS and (value is None or isinstance(value, (float, bool, list, dict)))):
                raise ConfigError(f"{override.input_line}: must be KEY=VALUE, for {', '.join(GROUPS)} one name")
        return parsed

    parse_overrides.numbers_name_groups = True  # pyright: ignore[reportFunctionMemberAccess]
    OverridesParser.parse_overrides = parse_overrides


def compose(**keywords: Any) -> RunConfig:
    """The checked config of some keywords, as on the command line: ``compose(fractal="vicsek", curve=4, width=20)``.

    Write a key with a dot as ``**{"fractal.depth": 6}`` or with two underscores, ``fractal__depth=6``.
    Raises ConfigError.
    """
    register()
    overrides = [f"{key.replace('__', '.')}={_literal(value)}" for key, value in keywords.items()]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            config = hydra_compose("config", overrides=overrides)
        except Exception as error:
            raise ConfigError(one_line(error)) from None
    return parse(config)


def parse(config: DictConfig, here: bool = True) -> RunConfig:
    """The typed config of a composed one. Arguments and errors are those of ``accepted``."""
    return accepted(resolved(config), here)


def accepted(values: Mapping[str, Any], here: bool = True) -> RunConfig:
    """The typed config of plain values.

    ``here`` says that this machine will train the run, so it must have the GPUs that the run needs.
    Raises ConfigError for a bad value. The message names the key, the value and what is allowed.
    """
    config = RunConfig.parse(values)
    check_memory(config)
    if here and config.trainer.accelerator == "gpu":
        check_gpus(config.trainer.devices)
    return config


def resolved(config: DictConfig) -> dict[str, Any]:
    """A composed config's own keys as plain values, without ``hydra``. Raises ConfigError if a value is missing."""
    values: dict[str, Any] = {}
    for name in config:
        key = str(name)
        if key != "hydra":
            value = MISSING if OmegaConf.is_missing(config, key) else config[key]
            values[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    if missing := _missing(values):
        raise ConfigError(f"{missing}=???: this key has no default, give it a value")
    return values


def _missing(values: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first key without a value, in order of names."""
    for key in sorted(values):
        value = values[key]
        found = _missing(cast(dict[str, Any], value), f"{prefix}{key}.") if isinstance(value, dict) else None
        if found or value == MISSING:
            return found or f"{prefix}{key}"
    return None


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (Mapping, list, tuple)):
        return json.dumps(value).replace('": ', '":').replace('"', "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sweep_name(overrides: Sequence[str]) -> str:
    """The name of a sweep, for example ``fractal=vicsek,curve,width``: fixed keys with their value, swept keys without.

    So the sweep keeps its name, and its finished runs, when swept values are added.
    """
    parts: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key.startswith(("-", "hydra")) or key.lstrip("+~") in NOT_IN_NAMES:
            continue
        swept = ("," in value and value[:1] not in "[{(") or value.startswith(
            ("range(", "choice(", "interval(", "glob(")
        )
        parts.append(key if swept else f"{key}={value}")
    name = ",".join(parts).replace("/", "_") or "default"
    if len(name) > 150:
        name = name[:120] + "-" + hashlib.sha256(name.encode()).hexdigest()[:12]
    return name

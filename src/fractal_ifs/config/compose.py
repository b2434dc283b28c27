"""Configs as Hydra composes them from conf/, and the typed ``RunConfig`` that is made of each."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_origin, get_type_hints

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import MISSING, DictConfig, OmegaConf

from fractal_ifs.config.machine import check_gpus, check_memory
from fractal_ifs.config.messages import one_line
from fractal_ifs.config.run import GROUPS, RunConfig, placement
from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.named import CONF

# Keys that no directory is named after: they can't change a result.
NOT_IN_NAMES = (*placement(), "logger", "experiment", "data.dir", "data.url")


def schema() -> type:
    """The structured config of a run's keys: Hydra refuses any other key, and any ill-typed value.

    A group is a mapping there, for its files may be users' own; composed, it becomes one of the group's dataclasses.
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
    """Make the schema and the resolvers of conf/ known to Hydra; a sweep is named after its overrides."""
    _numbers_name_groups()
    ConfigStore.instance().store(name="schema", node=schema(), provider="fractal_ifs")
    if OmegaConf.has_resolver("sweep_name") and not overrides:
        return
    # Cached, so that every job of a sweep gets the name that the sweep's own overrides gave it.
    OmegaConf.register_new_resolver("sweep_name", lambda: _sweep_name(overrides), use_cache=True, replace=True)


def _numbers_name_groups() -> None:
    """Let ``curve=1`` choose conf/curve/1.yaml: Hydra reads a number there and refuses it as a group's choice."""
    original = OverridesParser.parse_overrides
    if getattr(original, "numbers_name_groups", False):
        return

    def parse_overrides(self: OverridesParser, overrides: list[str]) -> list:
        parsed = original(self, overrides)
        for override in parsed:
            key, value = override.key_or_group, override._value
            if key in GROUPS and type(value) is int:
                override._value = str(value)
            elif not key or (key in GROUPS and (value is None or isinstance(value, (float, bool, list, dict)))):
                raise ConfigError(f"{override.input_line}: must be KEY=VALUE, for {', '.join(GROUPS)} one name")
        return parsed

    parse_overrides.numbers_name_groups = True  # pyright: ignore[reportFunctionMemberAccess]
    OverridesParser.parse_overrides = parse_overrides


def compose(**keywords: Any) -> RunConfig:
    """A checked config from keywords, as on the command line: ``compose(fractal="vicsek", curve=4, width=20)``.

    Keys with dots are given as a mapping (``**{"fractal.depth": 6}``) or with two underscores (``fractal__depth=6``).
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
    """The typed config of a composed one; as of ``accepted``."""
    return accepted(resolved(config), here)


def accepted(values: Mapping[str, Any], here: bool = True) -> RunConfig:
    """The typed config of plain values; every bad one is refused, with its key, itself and what is allowed.

    ``here``: this machine will train it, and must have the GPUs that it needs. Raises ConfigError.
    """
    config = RunConfig.parse(values)
    check_memory(config)
    if here and config.trainer.accelerator == "gpu":
        check_gpus(config.trainer.devices)
    return config


def resolved(config: DictConfig) -> dict[str, Any]:
    """A composed config's own keys as plain values. Raises ConfigError where a key was given none."""
    keys = [str(key) for key in config if key != "hydra"]
    if missing := sorted(OmegaConf.missing_keys(OmegaConf.masked_copy(config, keys))):
        raise ConfigError(f"{missing[0]}=???: this key has no default, give it a value")
    return {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value := config[key]) else value
        for key in keys
    }


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (Mapping, list, tuple)):
        return json.dumps(value).replace('": ', '":').replace('"', "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sweep_name(overrides: Sequence[str]) -> str:
    """``fractal=vicsek,curve,width``: the fixed overrides whole, of the swept ones the key; so values can be added."""
    parts = []
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

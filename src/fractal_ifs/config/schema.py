"""What a run is asked to be: the schema of conf/, every check of it, and the fingerprint of what can change a result.

Nothing here imports torch: a refused config must cost no more than reading it.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from fractal_ifs.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"

LOSSES = ("hinge", "logistic", "squared", "cross_entropy")
OPTIMIZERS = ("adam", "sgd")
GROUPS = ("fractal", "curve", "data", "model", "trainer", "logger")
TRAININGS = ("joint", "layerwise")
# Data sets of images: pixels of a side, training and test images.
IMAGES = {"cifar10": (32, 50_000, 10_000), "fashion_mnist": (28, 60_000, 10_000)}
ENGINES = ("auto", "native", "torch")
PRECISIONS = ("32-true", "bf16-mixed", "64-true")  # 16-mixed would need the losses scaled

# Keys that can't change what a run computes, or say only where it is put.
NOT_IN_FINGERPRINT = ("sweep", "overwrite", "kept", "workers", "logger", "engine", "experiment")
NOT_IN_FINGERPRINT += ("data.dir", "data.url")

# Keys that came after the first records, and the value of all before: left out of the fingerprint at that value.
SINCE = {"training": "joint"}


class Job(NamedTuple):
    """A run to be trained: its resolved config, and the directory of its record (None: nothing is written)."""

    config: dict[str, Any]
    directory: Path | None


@dataclasses.dataclass
class Schema:
    """The keys of conf/config.yaml and their types; Hydra refuses any other key and any ill-typed value."""

    fractal: dict[str, Any] = dataclasses.field(default_factory=dict)
    curve: dict[str, Any] = dataclasses.field(default_factory=dict)
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    trainer: dict[str, Any] = dataclasses.field(default_factory=dict)
    logger: dict[str, Any] = dataclasses.field(default_factory=dict)
    depth: int = 5
    width: int = 100
    lr: float = 5e-4
    loss: str = "hinge"
    optimizer: str = "adam"
    training: str = "joint"
    batch_size: int = 100
    steps: int = 1_000_000
    eval_every: int = 10_000
    seed: int = 0
    engine: str = "auto"
    workers: int = 0
    sweep: str = ""
    overwrite: bool = False
    kept: str = ""


def register(overrides: Sequence[str] = ()) -> None:
    """Make the schema and the resolvers of conf/ known to Hydra; a sweep is named after its overrides."""
    _numbers_name_groups()
    ConfigStore.instance().store(name="schema", node=Schema, provider="fractal_ifs")
    if OmegaConf.has_resolver("sweep_name") and not overrides:
        return
    # Cached, so that every job of a sweep gets the name that the sweep's own overrides gave it.
    OmegaConf.register_new_resolver("sweep_name", lambda: _sweep_name(overrides), use_cache=True, replace=True)


def _numbers_name_groups() -> None:
    """Let ``curve=1`` choose conf/curve/1.yaml: Hydra reads a number there and refuses it as a group's choice."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

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


def compose(**keywords: Any) -> DictConfig:
    """A checked config from keywords, as on the command line: ``compose(fractal="vicsek", curve=4, width=20)``.

    Keys with dots are given as a mapping (``**{"fractal.depth": 6}``) or with two underscores (``fractal__depth=6``).
    Raises ConfigError.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register()
    overrides = [f"{key.replace('__', '.')}={_literal(value)}" for key, value in keywords.items()]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            config = hydra_compose("config", overrides=overrides)
        except Exception as error:
            raise ConfigError(one_line(error)) from None
    check(config)
    return config


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
        if key.startswith(("-", "hydra")) or key.lstrip("+~") in NOT_IN_FINGERPRINT:
            continue
        swept = ("," in value and value[:1] not in "[{(") or value.startswith(
            ("range(", "choice(", "interval(", "glob(")
        )
        parts.append(key if swept else f"{key}={value}")
    name = ",".join(parts).replace("/", "_") or "default"
    if len(name) > 150:
        name = name[:120] + "-" + hashlib.sha256(name.encode()).hexdigest()[:12]
    return name


def check(config: DictConfig, here: bool = True) -> None:
    """Refuse every bad value, with one line that names the key, the value and what is allowed.

    ``here``: this machine will train it, and must have what it needs.
    Raises ConfigError.
    """
    known = [field.name for field in dataclasses.fields(Schema)]
    if unknown := sorted({str(key) for key in config} - {*known, "hydra"}):
        raise ConfigError(f"{unknown[0]}={config[unknown[0]]}: there is no such key; keys are {', '.join(known)}")
    for key in ("depth", "width", "steps", "batch_size", "eval_every"):
        _whole(key, config[key], 1)
    _whole("seed", config.seed, 0)
    _whole("workers", config.workers, 0)
    if not (math.isfinite(config.lr) and config.lr > 0):
        raise ConfigError(f"lr={config.lr}: must be a finite number > 0")
    for key, allowed in (("loss", LOSSES), ("optimizer", OPTIMIZERS), ("training", TRAININGS), ("engine", ENGINES)):
        _one_of(key, config[key], allowed)
    asked = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    if missing := sorted(OmegaConf.missing_keys(asked)):
        raise ConfigError(f"{missing[0]}=???: this key has no default, give it a value")
    trainer, data, model = config.trainer, config.data, config.model
    _one_of("trainer.precision", str(trainer.get("precision", "32-true")), PRECISIONS)
    _one_of("trainer.accelerator", trainer.get("accelerator", "cpu"), ("cpu", "gpu", "auto"))
    _one_of("trainer.strategy", trainer.get("strategy"), ("auto", "ddp"))
    _whole("trainer.devices", trainer.get("devices"), 1)
    _whole("trainer.threads", trainer.get("threads", 1), 1)
    if trainer.strategy != "ddp" and trainer.devices != 1:
        raise ConfigError(
            f"trainer.devices={trainer.devices}: must be 1 but with trainer=ddp; a sweep uses every GPU all the same"
        )
    if config.batch_size % trainer.devices:
        raise ConfigError(f"batch_size={config.batch_size}: must be a multiple of trainer.devices={trainer.devices}")
    if trainer.devices > 1 and trainer.get("cuda_graphs"):
        raise ConfigError(f"trainer.cuda_graphs=true: must be false with trainer.devices={trainer.devices}")
    for key in ("compile", "cuda_graphs"):
        _true_or_false(f"trainer.{key}", trainer.get(key))
    if trainer.cuda_graphs and trainer.accelerator == "cpu":
        raise ConfigError("trainer.cuda_graphs=true: needs a GPU, trainer=gpu")
    _one_of("logger.name", config.logger.get("name"), ("wandb", "csv", "none"))
    _one_of("model.name", model.get("name"), ("mlp", "cnn"))
    _one_of("data.name", data.get("name"), ("fractal", *IMAGES))
    if config.training == "layerwise" and model.get("name") != "mlp":
        raise ConfigError(f"training=layerwise: needs model=mlp, not {model.get('name')}")
    for key in ("train_size", "test_size"):
        _whole(f"data.{key}", data[key], 1)
    if config.batch_size > data.train_size:
        raise ConfigError(f"batch_size={config.batch_size}: must be at most data.train_size={data.train_size}")
    if data.name == "fractal":
        _check_fractal_run(config)
    else:
        _check_image_run(config)
    if here and trainer.accelerator == "gpu":
        _check_gpu(trainer.devices)


def on_this_machine(job: Job) -> Job:
    """A job whose ``trainer.accelerator`` is no longer ``auto``, but what is here: ``gpu`` or ``cpu``."""
    if job.config["trainer"]["accelerator"] != "auto":
        return job
    import torch

    accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    return job._replace(config=job.config | {"trainer": job.config["trainer"] | {"accelerator": accelerator}})


def _check_fractal_run(config: DictConfig) -> None:
    data, model = config.data, config.model
    if model.name != "mlp":
        raise ConfigError(f"model={model.name}: must be mlp with data={data.name}")
    _one_of("loss", config.loss, LOSSES[:-1])
    _one_of("model.init", model.init, ("paper", "theory", "pytorch"))
    _true_or_false("model.sum_last", model.get("sum_last"))
    _true_or_false("data.balanced", data.get("balanced"))
    if not (isinstance(data.margin, (int, float)) and math.isfinite(data.margin) and data.margin >= 0):
        raise ConfigError(f"data.margin={data.margin}: must be a finite number >= 0")
    _fits(
        (("width", "depth"), 16 * config.width**2 * (config.depth - 1) + 32 * config.width),
        (("data.train_size", "data.test_size"), 12 * (data.train_size + data.test_size)),
        (("batch_size", "width"), 8 * config.batch_size * config.width * config.depth),
        config=config,
    )
    _check_distribution(_plain(config.fractal), _plain(config.curve), float(data.margin))


def _check_image_run(config: DictConfig) -> None:
    trainer, data, model = config.trainer, config.data, config.model
    size, train_size, test_size = IMAGES[data.name]
    if model.name != "cnn":
        raise ConfigError(f"model={model.name}: must be cnn with data={data.name}")
    _one_of("loss", config.loss, LOSSES[-1:])
    _one_of("model.init", model.init, ("paper", "he", "pytorch"))
    _one_of("model.readout", model.readout, ("flatten", "mean"))
    for key in ("verify", "augment"):
        _true_or_false(f"data.{key}", data.get(key))
    for key, most in (("train_size", train_size), ("test_size", test_size), ("crop", size)):
        _whole(f"data.{key}", data[key], 1)
        if data[key] > most:
            raise ConfigError(f"data.{key}={data[key]}: must be at most {most}, as {data.name} has")
    _whole("model.pools", model.pools, 0)
    halvings = min(config.depth, model.pools)
    if data.crop >> halvings < 1:
        raise ConfigError(
            f"model.pools={model.pools}: {halvings} poolings of 2x2 (depth={config.depth}) leave nothing of "
            f"data.crop={data.crop} pixels; at most {data.crop.bit_length() - 1}"
        )
    _fits(
        (("width", "depth"), 16 * 25 * config.width**2 * (config.depth - 1) + 32 * config.width),
        (("batch_size", "width"), 12 * config.batch_size * config.width * data.crop**2),
        config=config,
    )
    if not _finite(data.brightness) or data.brightness < 0:
        raise ConfigError(f"data.brightness={data.brightness}: must be a finite number >= 0")
    low_high = list(data.contrast) if OmegaConf.is_list(data.contrast) else []
    if not (len(low_high) == 2 and all(map(_finite, low_high)) and 0 <= low_high[0] <= low_high[1]):
        raise ConfigError(f"data.contrast={data.contrast}: must be [low, high], finite numbers with 0 <= low <= high")
    _true_or_false("trainer.channels_last", trainer.get("channels_last", True))
    if not (isinstance(data.dir, str) or (data.dir is None and data.name == "cifar10")):
        raise ConfigError(f"data.dir={data.dir}: must be the path of a directory, as ./2024 or /data/cifar")
    if "url" in data and not isinstance(data.url, str):
        raise ConfigError(f"data.url={data.url}: must be an address, https://...")


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _true_or_false(key: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{key}={value}: must be true or false")


def _plain(node: Any) -> str:
    return json.dumps(OmegaConf.to_container(node, resolve=True), sort_keys=True)


@lru_cache(maxsize=4096)
def _check_distribution(fractal: str, curve: str, margin: float) -> None:
    """Jobs of a sweep share few distributions: each is checked once."""
    from fractal_ifs.fractals.curve import ApproximationCurve
    from fractal_ifs.fractals.ifs import AffineIFS

    keys = json.loads(fractal)
    n = keys.pop("depth", 5)
    _whole("fractal.depth", n, 1)
    AffineIFS.from_config(keys).check(n, margin)
    ApproximationCurve.from_config(json.loads(curve)).level_probabilities(n)


def _fits(*bytes_of: tuple[tuple[str, ...], int], config: DictConfig) -> None:
    """Refuse what no machine like this one can hold: four numbers per weight in training, or the points."""
    if not hasattr(os, "sysconf"):
        return
    here = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for keys, needed in bytes_of:
        if needed > here:
            asked = ", ".join(f"{key}={OmegaConf.select(config, key)}" for key in keys)
            raise ConfigError(f"{asked}: needs {needed >> 30} GiB of memory, this machine has {here >> 30}")


@lru_cache
def _check_gpu(devices: Any) -> None:
    import torch

    if not torch.cuda.is_available():
        raise ConfigError("trainer.accelerator=gpu: there is no GPU here that PyTorch can use; trainer=cpu is")
    if (there := torch.cuda.device_count()) < devices:
        raise ConfigError(f"trainer.devices={devices}: must be at most {there}, the GPUs here")


def _whole(key: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{key}={value}: must be a whole number >= {least}")


def _one_of(key: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key}={value}: must be one of {', '.join(allowed)}")


def fingerprint(config: Mapping[str, Any]) -> str:
    """16 hex digits of everything in a resolved config that can change the result."""
    kept = {key: value for key, value in config.items() if key not in NOT_IN_FINGERPRINT and SINCE.get(key) != value}
    trainer = config["trainer"]
    kept["trainer"] = {"precision": str(trainer.get("precision", "32-true"))}
    if trainer.get("compile"):  # takes sums in another order
        kept["trainer"]["compile"] = "true"
    if trainer.get("devices", 1) != 1:  # so does each device, with its share of the batch
        kept["trainer"]["devices"] = str(trainer["devices"])
    if config["data"]["name"] in IMAGES:
        kept = {key: value for key, value in kept.items() if key not in ("fractal", "curve")}
        kept["data"] = {k: v for k, v in config["data"].items() if f"data.{k}" not in NOT_IN_FINGERPRINT}
        for key, usual in (("channels_last", True), ("threads", 1)):  # so do these
            if trainer.get(key, usual) != usual:
                kept["trainer"][key] = str(trainer[key])
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def steps_in_all(config: Mapping[str, Any]) -> int:
    """The optimizer steps of a run: ``steps``, or in layer-wise training so many for each layer."""
    return config["steps"] * (config["depth"] if config.get("training") == "layerwise" else 1)


def check_writable(directory: Path, bytes_needed: int = 50_000_000) -> None:
    """Refuse an output directory that can't be made or written, or whose disk is nearly full. Raises ConfigError."""
    import shutil

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output directory {directory}: can't be made ({error.strerror})") from None
    if not os.access(directory, os.W_OK):
        raise ConfigError(f"output directory {directory}: can't be written")
    if (free := shutil.disk_usage(directory).free) < bytes_needed:
        raise ConfigError(
            f"output directory {directory}: {free >> 20} MiB of free disk, at least {bytes_needed >> 20} are needed"
        )


@contextlib.contextmanager
def refusals(interrupted: str = "interrupted") -> Iterator[None]:
    """End a command with one line, instead of a traceback, for what its user can mend."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its exceptions through: they are told here
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(interrupted)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        sys.exit(f"error: {error if isinstance(error, ConfigError) else one_line(error)}")
    except OSError as error:
        sys.exit(f"error: {error}")
    except ValueError as error:
        if not str(error).startswith("Only one of --run"):  # how Hydra refuses `-m --cfg job`
            raise
        sys.exit(f"error: {error}")


def one_line(error: BaseException) -> str:
    """What Hydra or OmegaConf refuse, in one line, with the nearest names where a choice is unknown."""
    import difflib
    import re

    text = str(error)
    if match := re.search(r"Could not find '([^'/]+(?:/[^'/]+)*)/([^'/]+)'", text):
        group, value = match.groups()
        options = [line.strip() for line in text.split("Available options", 1)[-1].splitlines()[1:] if line.strip()]
        options = [option for option in options if ":" not in option and " " not in option]
        near = difflib.get_close_matches(value, options, 3, 0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"{group}={value}: must be one of {', '.join(options)}{hint}"
    cause = error.__cause__
    if match := re.search(r"LexerNoViableAltException: (\S+=~\S*)", text):
        return f"{match.group(1)}: ~ can't stand here, write $HOME"
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match.group(1)
        names = [field.name for field in dataclasses.fields(Schema)]
        near = [] if key in names else difflib.get_close_matches(key, names, 1, 0.6)
        return f"{key}: there is no such key" + (f"; did you mean {near[0]}?" if near else "")
    if match := re.search(r"In 'experiment/(\w+)'.*Key '(\w+)' not in", text, re.DOTALL):
        return f"experiment={match.group(1)}: sets {match.group(2)}, which is not a key of this command"
    if match := re.search(r"Error merging override (\S+)", text):
        return f"{match.group(1)}: {str(cause).splitlines()[0]}"
    first = " ".join(line.strip() for line in text.splitlines() if line.strip())
    if cause is not None and str(cause).splitlines() and str(cause).splitlines()[0] not in first:
        first += ": " + str(cause).splitlines()[0]
    key = re.search(r"full_key: (\S+)", text + " " + str(cause))
    first = re.sub(r"\s*full_key: \S+|\s*object_type=\S+|\s*reference_type=\S+", "", first)
    return f"{first} (key {key.group(1)})" if key and key.group(1) not in first else first

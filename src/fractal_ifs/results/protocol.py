"""The paper's protocol (section 5), and how the config of a run differs from it."""

import ast
import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from fractal_ifs.config.data import FractalData
from fractal_ifs.config.leaves import leaves
from fractal_ifs.config.lightning import flags_of_result
from fractal_ifs.config.loss import OF_IMAGES
from fractal_ifs.config.run import NAMED, RunConfig, by_name
from fractal_ifs.files import CONF
from fractal_ifs.results.values import number_of

PAPER_STEPS = {"fractal": 1_000_000, "cifar10": 60_000}  # section 5; Figure 7
PAPER_MODELS = ("mlp", "cnn")
PAPER_EVALUATIONS = {"fractal": 100, "cifar10": 60}  # the paper's accuracies are the best of this many

# Not part of a setting: the keys that name a cell, and those that a cell is the best or the mean over.
_OUTSIDE = {"depth", "width", "lr", "seed", "steps", "eval_every", "trainer"}
_WORDS = ("None", "null", "True", "False")  # values that are no text
_PLAIN = r"[a-z_]\w*(?:\.\w+)*"  # a key that stands in ``differs`` as it is; of a user's own it may be any text
_IN_QUOTES = r'"(?:[^"\\=]|\\.)*"'  # any other key, as ``_quoted_key`` writes it
_BEFORE_QUOTES = r"callbacks\.[^=,'\"{}]+=\{"  # how earlier versions wrote these
_BETWEEN = rf", (?=(?:{_PLAIN}|{_IN_QUOTES})=|{_BEFORE_QUOTES})"  # two keys of ``differs``


class Setting(NamedTuple):
    """All keys of a run that may change its result and that have no place in a cell's name."""

    setting: str  # a hash: runs of one cell are comparable where it is the same
    differs: str  # ``loss=logistic, ...``: the keys that differ from the paper's protocol; empty where none does


def keys_of_difference(run: Mapping[str, Any]) -> dict[str, str]:
    """The keys in ``differs`` of a run's row, with their values as text: ``{"data.margin": "0.001"}``.

    Those of a callback, or of another mapping of a user's own, stand there as one: ``callbacks.norms={'every': 5}`` is
    ``callbacks.norms.every``, as on the command line.
    """
    found: dict[str, str] = {}
    for key, text in (part.split("=", 1) for part in parts_of_difference(run)):
        found |= _apart(_unquoted(key), text)
    return found


@lru_cache(maxsize=4096)
def _apart(key: str, text: str) -> Mapping[str, str]:
    """A key of ``differs`` with its value as text. Of a mapping the keys in it."""
    value = _unquoted(text)
    is_text = value != text and not key.startswith("callbacks.")  # a callback may be in quotes in an earlier version's
    if value.startswith(("{", "[")) and not is_text:
        # A text that was split can't be read; what comes from elsewhere may be anything.
        with contextlib.suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            whole = ast.literal_eval(_Floats().visit(ast.parse(value, mode="eval")))
            inner = leaves({key: whole})
            if len(inner) == _count(whole):  # else two of them have one name: {"a.b": 1, "a": {"b": 2}}
                return {name: "null" if each is None else _told(each) for name, each in inner.items()}
    return {key: text if value == text else _told(value)}


class _Floats(ast.NodeTransformer):
    """Reads the two numbers that Python writes as names."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(float(node.id)) if node.id in ("inf", "nan") else node


def _count(value: Any) -> int:
    """How many values there are in a mapping and those in it. Anything else is one."""
    return sum(map(_count, cast(dict[Any, Any], value).values())) if isinstance(value, dict) and value else 1


def parts_of_difference(run: Mapping[str, Any]) -> list[str]:
    """What ``differs`` of a run's row names: ``data.margin=0.001``; a mapping, as a callback, is one part."""
    return [part for part in re.split(_BETWEEN, str(run["differs"] or "")) if "=" in part]


def _quoted(value: Any) -> str:
    """A value as it stands in ``differs``, without ``, key=`` in it, which would be read as another key."""
    text = _told(value)
    if not re.search(_BETWEEN, text):
        return text
    if isinstance(value, str):
        return json.dumps(value).replace("=", "\\u003d")
    return text.replace("=", "\\x3d")  # of a mapping or a list, where it is part of a text in it


def _flag(text: str) -> str:
    """A flag of the trainer, which is JSON: a number is no text that looks like one."""
    if text.startswith('"'):
        return _quoted(text)
    return text.replace("=", "\\u003d") if re.search(_BETWEEN, text) else text


def _quoted_key(key: str) -> str:
    """A key as it stands in ``differs``: in quotes if it might be read as more, or less, than a key."""
    return key if re.fullmatch(_PLAIN, key) else json.dumps(key).replace("=", "\\u003d")


def _unquoted(text: str) -> str:
    """A key or a value of ``differs`` without its quotes."""
    with contextlib.suppress(ValueError):
        return str(json.loads(text)) if text.startswith('"') else text
    return text


def _told(value: Any) -> str:
    """A value as a table has it. A text that looks like another kind of value is in quotes: ``"01"`` isn't 1."""
    text = str(value)
    like_another = number_of(text) is not None or text in _WORDS or text.startswith(("[", "{", '"'))
    return json.dumps(text) if isinstance(value, str) and like_another else text


def protocol_value(run: Mapping[str, Any], key: str) -> str | None:
    """The value that a key has in the paper's protocol, for the row of a run.

    Of a choice that isn't the paper's, such as ``optimizer=sgd``, it is the choice's own. None where it has none.
    """
    names = (run.get("fractal"), run.get("curve"), run["data"], run.get("model"))
    value = _protocol(*map(str, names)).get(key)
    if value is not None:
        return str(value)
    group, _, name = key.partition(".")
    chosen = run.get(group) or keys_of_difference(run).get(group) or _defaults().get(group)
    return _usual(group, str(chosen), name) if name else chosen


@lru_cache(maxsize=4096)
def _usual(group: str, chosen: str, name: str) -> str | None:
    """The value of a key of one of our choices where nothing is said of it, as of ``optimizer.momentum``."""
    content = _choice(group, chosen)
    return None if name not in content else "null" if content[name] is None else str(content[name])


def setting_of(config: RunConfig) -> Setting:
    """The setting of a run."""
    flat = _flat({key: value for key, value in config.identity().items() if key not in _OUTSIDE})
    flat.pop("data.verify", None)  # it says whether images were compared with their checksum, and changes no result
    flat["trainer.precision"] = config.trainer.precision
    flat |= {f"trainer.{name}": value for name, value in flags_of_result(config.trainer.flags).items()}
    # Two values are not the paper's and in no identity, since the runs before there were these keys have them.
    if config.trainer.precision == "64-true" and config.trainer.draw == "precision":
        flat["trainer.draw"] = config.trainer.draw
    data = config.data
    repeated = isinstance(data, FractalData) and data.overlaps == "repeated" and config.fractal.overlapping
    return _compared(json.dumps(flat, sort_keys=True), repeated)


@lru_cache(maxsize=65536)
def _compared(text: str, repeated: bool) -> Setting:
    flat = json.loads(text) | ({"data.overlaps": "repeated"} if repeated else {})
    names = tuple(str(flat.get(f"{group}.name")) for group in ("fractal", "curve", "data", "model"))
    paper = _protocol(*names)
    differs = [
        f"{_quoted_key(key)}={_flag(value) if key.startswith('trainer.') else _quoted(value)}"
        for key, value in sorted(flat.items())
        if key not in paper or paper[key] != value
    ]
    return Setting(hashlib.sha256(text.encode()).hexdigest()[:12], ", ".join(differs))


@lru_cache
def _protocol(*names: str) -> dict[str, Any]:
    """The flat keys of the paper's protocol, which are the defaults in conf/, for these members of the four groups."""
    config = _file(CONF / "config.yaml") | _choice("protocol", names[2])
    flat = {key: value for key, value in config.items() if key not in (*_OUTSIDE, "defaults", "hydra")}
    flat |= {name: _defaults()[name] for name in NAMED if name != "schedule"}  # the usual one is no part of an identity
    if names[2] != "fractal":
        [flat["loss"]] = OF_IMAGES
    for group, name in zip(("fractal", "curve", "data", "model"), names, strict=True):
        if content := _choice(group, name):
            flat[group] = dict(content)
    if names[3] not in PAPER_MODELS and "model" in flat:
        del flat["model"]["name"]
    return _flat(flat) | {"trainer.precision": "32-true"}


def _defaults() -> dict[str, str]:
    """The choice of each group where none is asked for."""
    defaults = _file(CONF / "config.yaml")["defaults"]
    return {key: value for entry in defaults if isinstance(entry, dict) for key, value in entry.items()}


def _choice(group: str, name: str) -> dict[str, Any]:
    """The file of one of our choices. Empty for any other name, which may be anything, a path too."""
    return _file(CONF / group / f"{name}.yaml") if f"{name}.yaml" in _names(group) else {}


@lru_cache
def _names(group: str) -> frozenset[str]:
    return frozenset(path.name for path in (CONF / group).glob("*.yaml"))


@lru_cache
def _file(path: Path) -> dict[str, Any]:
    import yaml

    return yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """``{"data.name": ...}``, without the fractal's depth, which names the cell. Keys that are null are left out."""
    flat = {key: value for key, value in by_name(config, levels=2).items() if value is not None}
    flat.pop("fractal.depth", None)
    return flat

"""theory.json: what a command computed, so that pictures of another look are drawn without computing it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from fractal_ifs import files
from fractal_ifs.config.names import LOOKS
from fractal_ifs.runs.versions import versions
from fractal_ifs.theorems.problem import Check
from fractal_ifs.version import __version__

FORMAT = 1
NAME = "theory.json"


@dataclass(frozen=True)
class Computed:
    """What was computed, by statement."""

    checks: dict[str, list[Check]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # that it took the command that computed it
    pictures: dict[str, dict[str, Any]] = field(default_factory=dict)  # numbers that only a picture has

    def write(self, directory: Path, keys: Mapping[str, Any]) -> None:
        """Write theory.json, with the keys of the command. Raises OSError."""
        checks = [{**asdict(check), "of": name} for name, found in self.checks.items() for check in found]
        record: dict[str, Any] = {
            **_made_by(keys),
            "seconds": self.seconds,
            "holds": all(check["holds"] is not False for check in checks),
            "checks": checks,
            "pictures": self.pictures,
        }
        record["digest"] = _digest(record)
        files.write(directory / NAME, (json.dumps(record, indent=1, default=_plain) + "\n").encode())


def computed(directory: Path, keys: Mapping[str, Any]) -> Computed:
    """What the last command in a directory computed, if only the look of its pictures was another. Else nothing.

    The same command computes anew, as one of other versions does, of changed sources, and of curves in files; and so
    does any where the file isn't as it was written.
    """
    try:
        found = json.loads(files.read(directory / NAME))
        if found.pop("digest") != _digest(found):
            return Computed()
        was, now = ({name: made[name] for name in _made_by(keys)} for made in (found, _made_by(keys)))
        if was["config"] == now["config"] or _numbers(was) != _numbers(now) or _may_differ(now["config"]):
            return Computed()
        checks: dict[str, list[Check]] = {name: [] for name in found["seconds"]}
        for each in found["checks"]:
            checks[each.pop("of")].append(Check(**each))
        return Computed(checks, found["seconds"], found["pictures"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError):  # none, or none of ours
        return Computed()


def _digest(record: Mapping[str, Any]) -> str:
    """That of a record's numbers and texts."""
    return sha256(json.dumps(record, sort_keys=True, default=_plain).encode()).hexdigest()


def _made_by(keys: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    config = json.loads(json.dumps(keys, default=_plain))  # as it is read again
    made = {"torch": torch.__version__, "version": __version__, "git_commit": versions().git_commit}
    return {"format": FORMAT, "config": config, **made}


def _may_differ(config: Mapping[str, Any]) -> bool:
    """Whether the same keys may give other numbers: the sources are not those of a commit, or a curve is a file's."""
    ours = {path.stem for path in (files.CONF / "curve").glob("*.yaml")}
    sections = [config, *(value for value in config.values() if isinstance(value, dict))]
    curves = {str(name) for section in sections for name in section.get("curves", ())}
    return bool(versions().git_modified) or not curves <= {*ours, "own"}


def _numbers(made: Mapping[str, Any]) -> dict[str, Any]:
    """What numbers follow from."""
    return {**made, "config": {name: value for name, value in made["config"].items() if name not in LOOKS}}


def _plain(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(type(value))

"""The command line is frozen: its keys, their defaults and choices, and the experiments' names, as one snapshot.

Users' scripts, sweeps' directories and kept results rest on these. Who changes one on purpose runs
``python tests/test_command_line.py`` and commits the snapshot with the change, and a line in CHANGELOG.md.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import OmegaConf

from fractal_ifs.config.keys import Group
from fractal_ifs.config.names import NOT_IN_NAMES
from fractal_ifs.config.run import GROUPS, KINDS, RunConfig
from fractal_ifs.config.session import Schema
from fractal_ifs.files import CONF
from fractal_ifs.help.takes import overridden
from fractal_ifs.sweeps.packing import Packing
from fractal_ifs.sweeps.rungs import Halving
from fractal_ifs.sweeps.slurm_settings import SlurmSettings

SNAPSHOT = Path(__file__).parent / "snapshots" / "command_line.txt"
OUTSIDE = ("defaults", "hydra")  # of a file of conf/: how Hydra puts it together


def leaves(keys: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in keys.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def content(path: Path) -> dict[str, Any]:
    """What a file of conf/ sets, as Hydra reads it, interpolations as they stand."""
    found: Any = OmegaConf.to_container(OmegaConf.load(path))
    return {key: value for key, value in found.items() if key not in OUTSIDE}


def typed(kind: type[Group]) -> Iterator[str]:
    """The keys of a dataclass: what each may be."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.metadata:
            hint = hints[field.name]
            name = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
            limits = [
                f"{word} {field.metadata[word]:g}" for word in ("least", "above") if field.metadata[word] is not None
            ]
            later = [] if field.default is dataclasses.MISSING else [f"before it came: {field.default}"]
            place = [] if field.metadata["result"] else ["changes no result"]
            yield f"  {field.name}: {', '.join([name, *limits, *later, *place])}"


def snapshot() -> str:
    """All of it, as text."""
    lines = ["Keys, and what each may be"]
    for kind in (*KINDS, Packing, SlurmSettings, Halving):
        lines += ["", f"{kind.__name__} ({kind.PREFIX}*)" if kind.PREFIX else kind.__name__, *typed(kind)]
    lines += ["", "", "Defaults of the keys that have no group: conf/config.yaml", ""]
    lines += [f"  {key} = {value!r}" for key, value in leaves(content(CONF / "config.yaml"))]
    lines += ["", "", "Groups, their choices, and what each choice sets"]
    for folder in sorted({path.parent for path in CONF.rglob("*.yaml")} - {CONF}):
        group = folder.relative_to(CONF).as_posix()
        for path in sorted(folder.glob("*.yaml")):
            lines += ["", f"{group}={path.stem}"]
            if group != "experiment":
                lines += [f"  {key} = {value!r}" for key, value in leaves(content(path))]
                lines += [f"  chooses {key} = {value!r}" for key, value in overridden(path).items()]
    for experiment in sorted((CONF / "experiment").glob("*.yaml")):
        swept: Any = OmegaConf.to_container(OmegaConf.load(experiment))
        params = swept.get("hydra", {}).get("sweeper", {}).get("params", {})
        lines += [
            "",
            f"experiment={experiment.stem} sweeps",
            *(f"  {key} = {value!r}" for key, value in params.items()),
        ]
    for command in ("plot", "theory"):
        lines += ["", "", f"Keys of python -m fractal_ifs.{command}: conf/{command}.yaml", ""]
        lines += [f"  {key} = {value!r}" for key, value in leaves(content(CONF / f"{command}.yaml"))]
    return "\n".join(lines) + "\n"


def test_the_command_line_is_as_it_was():
    assert snapshot() == SNAPSHOT.read_text(), "changed on purpose? then: python tests/test_command_line.py"


def test_every_default_stands_once_and_has_its_type():
    """In conf/: every file of a group is accepted as it is, and Hydra's schema has the keys of a run."""
    keys = set(content(CONF / "config.yaml"))
    assert keys == {field.name for field in dataclasses.fields(RunConfig)} - set(GROUPS)
    assert [field.name for field in dataclasses.fields(Schema)] == [f.name for f in dataclasses.fields(RunConfig)]
    assert list(NOT_IN_NAMES) == OmegaConf.load(CONF / "config.yaml").hydra.job.config.override_dirname.exclude_keys
    for kind in (*KINDS, Packing, SlurmSettings):
        for field in dataclasses.fields(kind):
            written = field.name in ("flags", "others")  # as given, for Lightning
            assert written or field.name in GROUPS or field.metadata["doc"], (
                f"{kind.__name__}.{field.name} isn't explained"
            )
    for group, parse in GROUPS.items():
        for path in (CONF / group).glob("*.yaml"):
            made: Any = parse(content(path))
            plain = made.keys if group in ("fractal", "curve") else made.plain()
            assert {key: plain[key] for key in content(path)} == content(path), path
    for name, kind in (("fused", Packing), ("slurm", SlurmSettings)):
        written = content(CONF / "hydra" / "launcher" / f"{name}.yaml")
        assert kind.parse({key: value for key, value in written.items() if key != "_target_"})


if __name__ == "__main__":
    SNAPSHOT.parent.mkdir(exist_ok=True)
    SNAPSHOT.write_text(snapshot())
    print(SNAPSHOT)

"""The keys of conf/hydra/launcher/fused.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fractal_ifs.config.keys import Group, key


@dataclass(frozen=True, kw_only=True)
class Packing(Group):
    """The keys of conf/hydra/launcher/fused.yaml."""

    PREFIX: ClassVar[str] = "hydra.launcher."

    executor: Literal["auto", "inline", "local"] = key(
        "this process, or where the engine needs them others, per GPU or core; auto: as is quicker"
    )
    stack: int = key("networks of one shape in a program of the torch engine; 0: chosen for the machine", least=0)

"""The config group ``model``: the kind of network. Its depth and width are keys of the run itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fractal_ifs.config.keys import Group, chosen, key, names_of
from fractal_ifs.config.own import TARGET, Own
from fractal_ifs.errors import ConfigError

Activation = Literal["relu", "leaky", "gelu", "tanh", "sine"]
Norm = Literal["none", "layer"]
MLPInit = Literal["paper", "theory", "pytorch"]
CELLS = 2**24  # along an axis: as many as single precision tells apart


@dataclass(frozen=True, kw_only=True)
class MLPModel(Group):
    """``model=mlp``: the fully connected network of Section 5, which is plain and has ReLUs, and others like it."""

    PREFIX: ClassVar[str] = "model."

    name: Literal["mlp"] = key("which network")
    init: MLPInit = key("initial weights: section 5's, Theorem 5's, nn.Linear's")
    sum_last: bool = key("the last hidden layer reads the sum of all earlier ones")
    activation: Activation = key("what follows each hidden layer", later="relu")
    norm: Norm = key("layer: the units of a layer are normalised before its activation", later="none")
    skip: Literal["none", "residual", "sum"] = key(
        "residual: each hidden layer is added to what it read; sum: as sum_last=true", later="none"
    )

    def check(self) -> None:
        """Raises ConfigError where two keys say what the last layer reads."""
        if self.sum_last and self.skip == "residual":
            raise ConfigError("model.skip=residual: must be none or sum with model.sum_last=true")

    @property
    def sums(self) -> bool:
        """Whether the last hidden layer reads the sum of all earlier ones."""
        return self.sum_last or self.skip == "sum"

    @property
    def varied(self) -> str | None:
        """The key in which it isn't Section 5's network, None where it is."""
        usual = {"activation": "relu", "norm": "none"} | ({} if self.sums else {"skip": "none"})
        return next((f"model.{k}={getattr(self, k)}" for k, v in usual.items() if getattr(self, k) != v), None)

    @property
    def architecture(self) -> tuple[Any, ...]:
        """What networks of one shape have in common, if they train in one stack."""
        return "mlp", self.sums, self.activation, self.norm, self.skip == "residual"

    def identity(self) -> dict[str, Any]:
        """As of ``Group``; ``skip=sum`` is the older ``sum_last=true``."""
        found = super().identity() | {"sum_last": self.sums}
        if self.skip == "sum":
            found.pop("skip")
        return found


@dataclass(frozen=True, kw_only=True)
class ResMLPModel(Group):
    """``model=resmlp``: a residual network of blocks with two layers each."""

    PREFIX: ClassVar[str] = "model."

    name: Literal["resmlp"] = key("which network")
    init: MLPInit = key("initial weights, as of mlp")
    activation: Activation = key("what stands between the two layers of a block")
    norm: Norm = key("layer: what a block reads is normalised")
    expansion: float = key("units between the two layers of a block, as a multiple of width", above=0, most=1000)

    @property
    def varied(self) -> str | None:
        """As of ``MLPModel``."""
        return "model=resmlp"

    @property
    def architecture(self) -> tuple[Any, ...]:
        """As of ``MLPModel``."""
        return self.name, self.activation, self.norm, self.expansion


@dataclass(frozen=True, kw_only=True)
class TransformerModel(Group):
    """``model=transformer``: attention over a point's places in its cells of a grid, level by level."""

    PREFIX: ClassVar[str] = "model."

    name: Literal["transformer"] = key("which network")
    init: MLPInit = key("initial weights, as of mlp")
    activation: Activation = key("what stands between the two layers of a block")
    base: int = key("the grid of level j has base^j cells along each axis of [-1, 1]^d", least=2, most=100)
    levels: int = key("tokens beside the point itself", least=0, most=24)

    def check(self) -> None:
        """Raises ConfigError where cells of the last level are too small for single precision."""
        if self.base**self.levels > CELLS:
            most = max(j for j in range(self.levels) if self.base**j <= CELLS)
            raise ConfigError(f"model.levels={self.levels}: must be at most {most} with model.base={self.base}")

    @property
    def varied(self) -> str | None:
        """As of ``MLPModel``."""
        return "model=transformer"

    @property
    def architecture(self) -> tuple[Any, ...]:
        """As of ``MLPModel``."""
        return self.name, self.activation, self.base, self.levels


@dataclass(frozen=True, kw_only=True)
class Theorem1Model(Group):
    """``model=theorem1``: an MLP that begins as the network of Theorem 1, which is built for the run's fractal."""

    PREFIX: ClassVar[str] = "model."

    name: Literal["theorem1"] = key("which network")
    noise: float = key("each weight is multiplied by 1 + noise times a normal number", least=0, most=1e6)
    gamma: float | None = key(
        "how far within the set it is surely positive; null: data.margin, or where that is 0 a tenth of what fits "
        "into a cell",
        above=0,
    )

    init: ClassVar[str] = "theorem1"

    @property
    def varied(self) -> str | None:
        """None: it differs from Section 5's network by its weights alone."""
        return None

    @property
    def architecture(self) -> tuple[Any, ...]:
        """As of ``MLPModel``: that of a plain one."""
        return "mlp", False, "relu", "none", False


@dataclass(frozen=True, kw_only=True)
class CNNModel(Group):
    """``model=cnn``: the convolutional network of Figure 7."""

    PREFIX: ClassVar[str] = "model."

    name: Literal["cnn"] = key("which network")
    init: Literal["paper", "he", "pytorch"] = key("initial weights")
    pools: int = key("how many of the first layers 2x2 max-pooling follows", least=0, most=100_000)
    readout: Literal["flatten", "mean"] = key("linear in every value of the last map, or in its channels' means")

    varied: ClassVar[str] = "model=cnn"
    architecture: ClassVar[tuple[Any, ...]] = ("cnn",)


OURS = (MLPModel, ResMLPModel, TransformerModel, Theorem1Model, CNNModel)


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnModel(Own):
    """A network of a user's own: the class that ``_target_`` names, and the other keys of its file.

    ``networks.own`` has what the class must be.
    """

    PREFIX: ClassVar[str] = "model."
    IS: ClassVar[str] = "a class with its module, as nets.Siren"
    WHAT: ClassVar[str] = "the network"
    TAKEN: ClassVar[tuple[str, ...]] = tuple(name for kind in OURS for name in names_of(kind))
    OF_THE_RUN: ClassVar[tuple[str, ...]] = ("d", "width", "depth", "generator")
    init: ClassVar[None] = None  # the class's own matter

    @property
    def varied(self) -> str:
        """As of ``MLPModel``."""
        return f"model={self.name}"

    @property
    def architecture(self) -> tuple[Any, ...]:
        """As of ``MLPModel``."""
        return self.target, json.dumps(self.keys, sort_keys=True)


Model = MLPModel | ResMLPModel | TransformerModel | Theorem1Model | CNNModel | OwnModel


def parse_model(keys: Mapping[str, Any]) -> Model:
    """The group of the kind that ``keys["name"]`` names, or of a user's own. Raises ConfigError."""
    if TARGET in keys:
        return OwnModel.parse(keys)
    return chosen(keys, OURS).parse(keys)

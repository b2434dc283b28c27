"""The config group ``model``: the kind of network. Its depth and width are keys of the run itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fractal_ifs.config.keys import Group, checked, key


@dataclass(frozen=True, kw_only=True)
class MLPModel(Group):
    """``model=mlp``: the fully connected ReLU network of Section 5."""

    PREFIX: ClassVar[str] = "model."

    name: Literal["mlp"] = key("which network")
    init: Literal["paper", "theory", "pytorch"] = key("initial weights: section 5's, Theorem 5's, nn.Linear's")
    sum_last: bool = key("the last hidden layer reads the sum of all earlier ones")


@dataclass(frozen=True, kw_only=True)
class CNNModel(Group):
    """``model=cnn``: the convolutional network of Figure 7."""

    PREFIX: ClassVar[str] = "model."

    name: Literal["cnn"] = key("which network")
    init: Literal["paper", "he", "pytorch"] = key("initial weights")
    pools: int = key("how many of the first layers 2x2 max-pooling follows", least=0, most=100_000)
    readout: Literal["flatten", "mean"] = key("linear in every value of the last map, or in its channels' means")


Model = MLPModel | CNNModel


def parse_model(keys: Mapping[str, Any]) -> Model:
    """The group of the kind that ``keys["name"]`` names. Raises ConfigError."""
    name = checked("model.name", keys.get("name"), Literal["mlp", "cnn"], {})
    return (MLPModel if name == "mlp" else CNNModel).parse(keys)

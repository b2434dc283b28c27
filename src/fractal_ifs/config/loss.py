"""The config group ``loss``: what training makes small, as a mean over the points.

The formulas of ours are in ``engines.losses``; what a user's own must be, in ``engines.own_loss``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

from fractal_ifs.config.keys import key
from fractal_ifs.config.named import Named, parse_named
from fractal_ifs.config.own import TARGET, Own

OF_POINTS = ("hinge", "logistic", "squared", "squared_hinge", "exponential")  # of labels -1 and 1
OF_IMAGES = ("cross_entropy",)  # of ten classes


@dataclass(frozen=True, kw_only=True)
class Loss(Named):
    """``loss=hinge`` and others, which have no keys."""

    PREFIX: ClassVar[str] = "loss."

    name: Literal["hinge", "logistic", "squared", "squared_hinge", "exponential", "cross_entropy"] = key("which loss")


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnLoss(Own):
    """A loss of a user's own: the function that ``_target_`` names, and the other keys of its file."""

    PREFIX: ClassVar[str] = "loss."
    IS: ClassVar[str] = "a function with its module, as losses.soft"
    WHAT: ClassVar[str] = "the loss"
    TAKEN: ClassVar[tuple[str, ...]] = (*OF_POINTS, *OF_IMAGES)
    OF_THE_RUN: ClassVar[tuple[str, ...]] = ("f", "y")

    def spelled(self) -> dict[str, Any]:
        """As a record stores it, and as it belongs to a fingerprint."""
        return self.plain()


AnyLoss = Loss | OwnLoss
LOSSES = (Loss,)


def parse_loss(given: Any) -> AnyLoss:
    """The loss of a name or of keys. Raises ConfigError."""
    if isinstance(given, Mapping) and TARGET in (keys := cast(Mapping[str, Any], given)):
        return OwnLoss.parse(keys)
    return parse_named(cast(object, given), LOSSES)

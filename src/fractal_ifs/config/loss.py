"""The config group ``loss``: what training makes small, as a mean over the points.

Their formulas are in ``engines.stacked.losses``.

A loss of one's own would be a second kind here, beside ``Loss``, with the ``_target_`` of its function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fractal_ifs.config.keys import key
from fractal_ifs.config.named import Named, parse_named

OF_POINTS = ("hinge", "logistic", "squared", "squared_hinge", "exponential")  # of labels -1 and 1
OF_IMAGES = ("cross_entropy",)  # of ten classes


@dataclass(frozen=True, kw_only=True)
class Loss(Named):
    """``loss=hinge`` and others, which have no keys."""

    PREFIX: ClassVar[str] = "loss."

    name: Literal["hinge", "logistic", "squared", "squared_hinge", "exponential", "cross_entropy"] = key("which loss")


LOSSES = (Loss,)


def parse_loss(given: Any) -> Loss:
    """The loss of a name or of keys. Raises ConfigError."""
    return parse_named(given, LOSSES)

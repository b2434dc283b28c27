"""Approximation curves: how the negative examples are spread over the levels of a fractal, from coarse to fine.

Section 3.2 of the paper ("Approximation Curve") defines P(j) = Pr[x not in K_j or y = 1], which rises from P(0) = 1/2
to P(n) = 1: a network that resolves K_j and nothing finer is right with probability P(j). A curve is given by one of

    degree  w_j = j^degree                                  the experiments' curves 1, 4, 5
    last    w_j = 1 on the `last` finest levels, else 0     the experiments' curves 2, 3, 6
    weights w_1..w_n >= 0, up to scale
    mass    p_1..p_n, the law of a negative's level         the Cantor distributions of the theory (Section 4)
    P       P(0)..P(n) itself

Weights act as in the experiments: scaled to the sum 1, a point that has come to level j becomes a negative there with
probability 1 - (1/2)^(w_j). Hence P(j) = 3/2 - (1/2)^(w_1 + ... + w_j).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.named import checked, name_of, read
from fractal_ifs.fractals.numbers import DEEPEST, Floats, number, short, vector, whole

KINDS = ("degree", "last", "weights", "mass", "P")


class ApproximationCurve:
    """A curve for every depth n (`degree`, `last`), or for the one depth that its list fits (`weights`, `mass`, `P`).

    Exactly one of the five is given; numbers may be strings and fractions. Raises ConfigError where a number is out of
    its range. Whether the curve fits a depth shows when that is known: the methods below raise ConfigError for others.
    """

    def __init__(
        self,
        *,
        degree: float | str | None = None,
        last: int | str | None = None,
        weights: Any = None,
        mass: Any = None,
        P: Any = None,
        name: str | None = None,
    ):
        given: dict[str, Any] = {"degree": degree, "last": last, "weights": weights, "mass": mass, "P": P}
        given = {kind: value for kind, value in given.items() if value is not None}
        if len(given) != 1:
            raise ConfigError(f"curve: has {' and '.join(given) or 'no values'}; must have one of {', '.join(KINDS)}")
        ((self.kind, value),) = given.items()
        key = f"curve.{self.kind}"
        if self.kind == "degree":
            self._value = np.array(number(value, key))
            if self._value < 0:
                raise ConfigError(f"{key}={short(value)}: must be a number >= 0")
        elif self.kind == "last":
            self._value = np.array(whole(value, key, 1))
        else:
            self._value = vector(value, key)
            _check_list(self.kind, self._value, value)
        self.name = name if name not in (None, "polynomial", *KINDS) else f"{name or self.kind}({_brief(self._value)})"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ApproximationCurve:
        """From the keys of a conf/curve/*.yaml: `name`, and degree, last, weights, mass or P. Raises ConfigError."""
        keys = checked(config, "curve", ("name", *KINDS))
        keys["name"] = name_of(keys, "curve")
        return cls(**keys)

    @classmethod
    def load(cls, name: str | int, **keys: Any) -> ApproximationCurve:
        """By the name of a conf/curve/*.yaml, or the path of a YAML file: load(4), load("polynomial", degree=3).

        `keys` take the place of the file's. Raises ConfigError.
        """
        return cls.from_config(read("curve", name, keys))

    def fits(self, n: int) -> bool:
        """Whether there is such a curve for depth n."""
        try:
            self.level_probabilities(n)
        except ConfigError:
            return False
        return True

    def level_probabilities(self, n: int) -> Floats:
        """(n + 1,): the probabilities of a negative of level 1, ..., n, then of a positive, 1/2. Their sum is 1."""
        n = whole(n, "fractal.depth", 1, DEEPEST)
        negatives = self._negatives(n)
        return np.append(negatives / (2 * negatives.sum()), 0.5)

    def P(self, n: int) -> Floats:
        """(n + 1,): P(0), ..., P(n), from 1/2 to 1."""
        P = 0.5 + np.append(0.0, np.cumsum(self.level_probabilities(n)[:-1]))
        P[-1] = 1.0
        return np.minimum(P, 1.0)

    def weights(self, n: int) -> Floats:
        """(n,): the weights w_1, ..., w_n of sum 1 that give this curve: P(j) = 3/2 - (1/2)^(w_1 + ... + w_j)."""
        if self.kind in ("degree", "last", "weights"):
            w = self._weights(n)
            return w / w.sum()
        return np.diff(-np.log2(1.5 - self.P(n)))

    def _weights(self, n: int) -> Floats:
        n = whole(n, "fractal.depth", 1, DEEPEST)
        if self.kind == "degree":
            return (np.arange(1, n + 1) / n) ** self._value
        if self.kind == "last":
            if self._value > n:
                raise ConfigError(f"curve.last={self._value}: must be at most the fractal's depth, {n}")
            return (np.arange(1, n + 1) > n - self._value).astype(np.float64)
        return self._of_length(n)

    def _negatives(self, n: int) -> Floats:
        """(n,): the probabilities of a negative's level, up to scale."""
        if self.kind == "mass":
            return self._of_length(n)
        if self.kind == "P":
            return np.diff(self._of_length(n + 1))
        w = self.weights(n)
        survived = 0.5 ** np.append(0.0, np.cumsum(w)[:-1])  # (1/2)^(w_1 + ... + w_(j-1))
        return survived * -np.expm1(-w * np.log(2))  # 1 - (1/2)^w, without cancellation where w is tiny

    def _of_length(self, length: int) -> Floats:
        if len(self._value) != length:
            depth = length - (self.kind == "P")
            raise ConfigError(
                f"curve.{self.kind}={_brief(self._value)}: must have {length} numbers for fractal.depth={depth}, "
                f"has {len(self._value)}"
            )
        return self._value

    def __repr__(self) -> str:
        return f"ApproximationCurve({self.kind}={_brief(self._value)}, name={self.name!r})"


def _check_list(kind: str, values: Floats, given: object) -> None:
    key = f"curve.{kind}={short(given)}"
    if kind == "P":
        if abs(values[0] - 0.5) > 1e-6 or abs(values[-1] - 1) > 1e-6 or (np.diff(values) < 0).any() or len(values) < 2:
            raise ConfigError(f"{key}: must be nondecreasing from P(0) = 1/2 to P(n) = 1")
        return
    if (values < 0).any():
        raise ConfigError(f"{key}: must not be negative")
    with np.errstate(over="ignore"):
        total = values.sum()
    if not 0 < total < np.inf:
        raise ConfigError(f"{key}: must not all be zero nor have an infinite sum")
    if kind == "mass" and abs(total - 1) > 1e-6:
        raise ConfigError(f"{key}: must sum to 1, sums to {total:g}")


def _brief(values: Floats) -> str:
    return f"{values:g}" if values.ndim == 0 else "[" + ",".join(f"{v:g}" for v in values) + "]"

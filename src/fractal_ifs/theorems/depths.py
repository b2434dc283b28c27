"""The depths of Theorem 5 and of the folded network: whole numbers, by formulas."""

from __future__ import annotations

from math import floor, log


def least_level(k: int, t: int, delta: float, bias: float = 0.5) -> int:
    """The least n' > log(2 t k^2 / (b delta)) / log(3/2): with b = 1/2, log(4 t k^2 / delta) / log(3/2) as printed."""
    return floor(log(2 * t * k**2 / (bias * delta)) / log(1.5)) + 1


def folded_depth(t: int) -> int:
    """The n = 3 t - 4 of the Cantor set C_n that a network of depth t >= 2 (readout counted) and width 8 realises."""
    return 3 * t - 4


def folding_depth(n: int) -> int:
    """The least depth t, the readout counted, with which the folded network resolves C_n."""
    return -(-(n + 4) // 3)


def least_depths(k: int, delta: float, bias: float = 0.5) -> tuple[int, int]:
    """The least depths t that meet Theorem 5's n > n', with n = floor(t / 2) as in the text and with 3 t - 4."""
    t = 2
    while t // 2 <= least_level(k, t, delta, bias):
        t += 1
    folded = 2
    while folded_depth(folded) <= least_level(k, folded, delta, bias):
        folded += 1
    return t, folded

"""Random 64-bit words as a function of (key, index), by SplitMix64, in torch.

There is no state: any word costs the same, and chunks and devices of any kind give the same words. As Steele, Lea and
Flood published it (Fast splittable pseudorandom number generators, OOPSLA 2014).
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))  # xor with itself shifted right, then multiply


def words(key: int | Tensor, index: Tensor) -> Tensor:
    """A random word for each index, int64 of any shape; `key` is any whole number, taken mod 2^64.

    Keys may also be a tensor of int64, as `signed` gives them, whose shape broadcasts with that of the indices.
    """
    z = index * signed(GOLDEN) + (key + signed(GOLDEN) if isinstance(key, Tensor) else signed(key + GOLDEN))
    for shift, factor in ROUNDS:
        z ^= high_bits(z, 64 - shift)
        if factor != 1:
            z *= signed(factor)
    return z


def derive(key: int, lane: int) -> int:
    """The key of the stream number `lane` of `key`: streams are independent of each other, and of other keys'."""
    return _mix(_mix(key) + lane)


def high_bits(word: Tensor, count: int) -> Tensor:
    """The highest `count` < 64 bits of each word, as a number in 0..2^count - 1."""
    return (word >> (64 - count)).bitwise_and_((1 << count) - 1)


def uniform(word: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """A number in [0, 1) for each word: a multiple of 2^-24 in float32, of 2^-53 in float64."""
    bits = 24 if dtype == torch.float32 else 53
    return high_bits(word, bits).to(dtype).mul_(2.0**-bits)


def signed(z: int) -> int:
    """A whole number mod 2^64 as int64 holds it: from -2^63 to 2^63 - 1."""
    z &= _MASK
    return z - 2**64 if z >> 63 else z


def _mix(z: int) -> int:
    z = (z + GOLDEN) & _MASK
    for shift, factor in ROUNDS:
        z = (z ^ (z >> shift)) * factor & _MASK
    return z

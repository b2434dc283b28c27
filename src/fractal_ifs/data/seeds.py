"""Every random number of a run comes from its seed: one independent stream per purpose, and shuffles without state.

An epoch's permutation is a function of (shuffle seed, epoch), so a run's position is its step count alone: a checkpoint
holds nothing about the order of the data, and every engine sees the same batches.
"""

import numpy as np
import torch

_STREAMS = ("train", "test", "init", "shuffle", "augment", "readouts")
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def stream(seed: int, purpose: str) -> int:
    """The 63-bit seed of one purpose of the run ``seed``: one of ``_STREAMS``."""
    words = np.random.SeedSequence([seed, _STREAMS.index(purpose)]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))  # a torch generator's seed is signed


def generator(seed: int, purpose: str) -> torch.Generator:
    """A fresh CPU generator of one purpose of the run ``seed``."""
    return torch.Generator().manual_seed(stream(seed, purpose))


def _mix(z):
    """SplitMix64's step and finaliser, on Python ints (mod 2^64) or on uint64 arrays."""
    if isinstance(z, int):
        z = (z + _GOLDEN) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)
    z = z + np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniforms(seed: int, step: int, steps: int, n: int) -> np.ndarray:
    """Numbers (steps, n) uniform in [0, 1), float64: row i is a function of the seed and of ``step + i`` alone."""
    start = np.uint64(_mix(seed & _MASK))
    rows = np.asarray(_mix(start + np.arange(step, step + steps, dtype=np.uint64)))
    keys = _mix(rows[:, None] + np.arange(n, dtype=np.uint64) * np.uint64(_GOLDEN))
    return (keys >> np.uint64(11)) * 2.0**-53


def permutation(shuffle_seed: int, epoch: int, n: int) -> np.ndarray:
    """The order (n,) of the training points in one epoch: the indices sorted by 31 random bits each, ties by index."""
    index = np.arange(n, dtype=np.uint64)
    keys = _mix(np.uint64(_mix(_mix(shuffle_seed & _MASK) + epoch & _MASK)) + index * np.uint64(_GOLDEN))
    packed = (keys >> np.uint64(33) << np.uint64(32)) | index
    packed.sort()
    return (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)

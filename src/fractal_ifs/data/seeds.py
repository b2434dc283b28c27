"""All random numbers of a run come from its seed, through one independent stream per purpose.

The permutation of an epoch is a function of the shuffle seed and the epoch. So the step alone tells where a run is in
its data: checkpoints hold nothing about the order, and every engine sees the same batches.
"""

from collections.abc import Sequence

import numpy as np
import torch

from fractal_ifs.fractals.splitmix import GOLDEN, ROUNDS, derive, high_bits, signed, words

_STREAMS = ("train", "test", "init", "shuffle", "augment", "readouts", "validation", "measures")


def stream(seed: int, purpose: str) -> int:
    """A seed of 63 bits for one purpose in the run with this seed. Raises ValueError unless it is in ``_STREAMS``.

    The training points of seed s + i 2^32, i = 1, 2, ..., have the stream of purpose number i of seed s, and keep it
    because there may be such runs.
    """
    words = np.random.SeedSequence([seed, _STREAMS.index(purpose)]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))  # torch takes signed seeds


def generator(seed: int, purpose: str) -> torch.Generator:
    """A new CPU generator for one purpose in the run with this seed."""
    return torch.Generator().manual_seed(stream(seed, purpose))


def uniforms(seed: int, step: int, steps: int, n: int) -> np.ndarray:
    """Uniform numbers (steps, n) in [0, 1), float64. Row i depends only on the seed and ``step + i``."""
    begin = _words(np.array([seed % 2**64], np.uint64), np.uint64(0))
    rows = _words(begin + np.arange(step, step + steps, dtype=np.uint64), np.uint64(0))
    keys = _words(rows[:, None], np.arange(n, dtype=np.uint64))
    return (keys >> np.uint64(11)) * 2.0**-53


def permutation(shuffle_seed: int, epoch: int, n: int) -> np.ndarray:
    """The order (n,) int64 of the training data in one epoch: indices sorted by 31 random bits each, ties by index."""
    index = np.arange(n, dtype=np.uint64)
    keys = _words(np.uint64(derive(shuffle_seed, epoch)), index)
    packed = (keys >> np.uint64(33) << np.uint64(32)) | index
    packed.sort()
    return (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)


def permutations(orders: Sequence[tuple[int, int]], n: int, device: str | torch.device) -> torch.Tensor:
    """The ``permutation`` of each (shuffle seed, epoch), drawn and sorted on a device: (len(orders), n) int32."""
    keys = _keys(orders)
    if torch.device(device).type == "cuda":  # from memory that stays in place: else this would wait for the stream
        keys = keys.pin_memory().to(device, non_blocking=True)
    index = torch.arange(n, device=device)
    packed = high_bits(words(keys, index), 31) << 32 | index
    return (packed.sort(dim=1).values & 0xFFFFFFFF).int()


def _words(key: np.ndarray | np.uint64, index: np.ndarray | np.uint64) -> np.ndarray:
    """``words`` in NumPy, which is several times faster for few of them. One of the two is an array of uint64."""
    z = (index + np.uint64(1)) * np.uint64(GOLDEN) + key
    for shift, factor in ROUNDS:
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    return np.asarray(z)


def _keys(streams: Sequence[tuple[int, int]]) -> torch.Tensor:
    """The keys of streams (key, lane), as a column (s, 1) of int64."""
    return torch.tensor([signed(derive(*each)) for each in streams], dtype=torch.int64)[:, None]

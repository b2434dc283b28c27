"""All random numbers of a run come from its seed, through one independent stream per purpose.

The permutation of an epoch is a function of the shuffle seed and the epoch. So the step alone tells where a run is in
its data: checkpoints hold nothing about the order, and every engine sees the same batches.
"""

from collections.abc import Sequence

import numpy as np
import torch

_STREAMS = ("train", "test", "init", "shuffle", "augment", "readouts", "validation", "measures")
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


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


def _mix(z):
    """SplitMix64's step and finaliser, on Python ints (modulo 2^64) or uint64 arrays."""
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
    """Uniform numbers (steps, n) in [0, 1), float64. Row i depends only on the seed and ``step + i``."""
    start = np.uint64(_mix(seed & _MASK))
    rows = np.asarray(_mix(start + np.arange(step, step + steps, dtype=np.uint64)))
    keys = _mix(rows[:, None] + np.arange(n, dtype=np.uint64) * np.uint64(_GOLDEN))
    return (keys >> np.uint64(11)) * 2.0**-53


def permutation(shuffle_seed: int, epoch: int, n: int) -> np.ndarray:
    """The order (n,) int64 of the training data in one epoch: indices sorted by 31 random bits each, ties by index."""
    index = np.arange(n, dtype=np.uint64)
    keys = _mix(np.uint64(_mix(_mix(shuffle_seed & _MASK) + epoch & _MASK)) + index * np.uint64(_GOLDEN))
    packed = (keys >> np.uint64(33) << np.uint64(32)) | index
    packed.sort()
    return (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)


def permutations(orders: Sequence[tuple[int, int]], n: int, device: str | torch.device) -> torch.Tensor:
    """The ``permutation`` of each (shuffle seed, epoch), drawn and sorted on a device: (len(orders), n) int32."""
    begins = torch.tensor([_signed(_mix(_mix(seed & _MASK) + epoch & _MASK)) for seed, epoch in orders])
    if torch.device(device).type == "cuda":  # from memory that stays in place: else this would wait for the stream
        begins = begins.pin_memory().to(device, non_blocking=True)
    index = torch.arange(n, device=device)
    # torch multiplies modulo 2^64, but shifts the sign in
    z = begins[:, None] + index * _signed(_GOLDEN) + _signed(_GOLDEN)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    keys = _shifted(z ^ _shifted(z, 31), 33) << 32 | index
    return (keys.sort(dim=1).values & 0xFFFFFFFF).int()


def _signed(z: int) -> int:
    return z - 2**64 if z >= 2**63 else z


def _shifted(z: torch.Tensor, bits: int) -> torch.Tensor:
    return (z >> bits) & (2 ** (64 - bits) - 1)

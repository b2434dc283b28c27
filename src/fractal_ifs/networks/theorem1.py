"""The network of Theorem 1 as the beginning of training: exact, or with noise on its weights."""

import torch
from torch import nn

from fractal_ifs.fractals.cube import CubeIFS
from fractal_ifs.fractals.ifs import AffineIFS
from fractal_ifs.networks.construction import theorem1_network
from fractal_ifs.networks.mlp import MLP


@torch.no_grad()
def theorem1_start(
    ifs: AffineIFS,
    n: int,
    gamma: float | None,
    width: int,
    depth: int,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> MLP:
    """An MLP that is positive on K_n^gamma and negative outside K_n, as far as noise and ``dtype`` let it be.

    Units that the construction doesn't need have weights 0, and hidden layers that it doesn't need are identities.

    Args:
        n: the fractal's depth. The construction needs 2 n hidden layers, and 4 d r + d + 1 units at most.
        gamma: None: as ``CubeIFS.margin`` chooses it.
        noise: every weight and bias is multiplied by 1 + ``noise`` times a normal number.
        generator: what draws the noise, one of seed 0 if not given.

    Raises ConfigError where Assumption 1 or 2 fails, or gamma is too large.
    """
    cube = CubeIFS.of(ifs)
    built = theorem1_network(cube, n, cube.margin(n, gamma), hidden=depth)
    model = MLP(cube.d, width, depth, dtype=torch.float64)
    generator = generator or torch.Generator().manual_seed(0)
    for there, here in zip(model.parameters(), built.parameters(), strict=True):
        there.zero_()
        there[tuple(slice(size) for size in here.shape)] = here
        if noise:
            there *= 1 + noise * torch.randn(there.shape, generator=generator, dtype=torch.float64)
    return _as(model, dtype)


def _as(model: MLP, dtype: torch.dtype) -> MLP:
    found: nn.Module = model.to(dtype)
    assert isinstance(found, MLP)
    return found

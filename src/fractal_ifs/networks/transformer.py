"""A transformer that reads a point's word: where the point lies in its cell of each level of a grid."""

import math

import torch
from torch import Tensor, nn

from fractal_ifs.networks.undrawn import linear
from fractal_ifs.networks.varied import ACTIVATIONS, draw


def zooms(x: Tensor, base: int, levels: int) -> Tensor:
    """Where points lie in their cells of a grid: (..., d) to (..., levels + 1, d), numbers in [-1, 1].

    The grid of level j cuts each axis of [-1, 1]^d into base^j equal cells, which lack their upper ends. Token j is the
    point in the coordinates of its cell, in which the cell is [-1, 1]^d; token 0 is the point itself. Where the cells
    of an IFS are cells of this grid, as of cantor2d and vicsek with base 3, token j of a point of K_j is its image
    under the inverses of the first j maps of its address, unless it lies on the upper face of a cell.
    """
    tokens = [x]
    for j in range(1, levels + 1):
        place = base**j * (x + 1) / 2
        tokens.append(2 * (place - place.floor()) - 1)
    return torch.stack(tokens, -2)


class Transformer(nn.Module):
    """``depth`` blocks of attention over the tokens of ``zooms``, and a linear readout of the tokens' mean.

    A block is h + W_o attention(norm(h)), with one head of ``width`` units, and then h + W_2 activation(W_1 norm(h)),
    with 2 ``width`` units between. A token's level is told by a vector, which is learned.

    Args:
        d, width, depth, init, generator: as of ``MLP``.
        activation: one of ``ACTIVATIONS``.
        base, levels: as of ``zooms``. Without levels there is one token, and the network is a residual one.
    """

    def __init__(
        self,
        d: int,
        width: int,
        depth: int,
        *,
        generator: torch.Generator,
        init: str = "pytorch",
        activation: str = "relu",
        base: int = 3,
        levels: int = 5,
    ):
        super().__init__()
        self.base, self.levels, self.activation = base, levels, ACTIVATIONS[activation]
        self.first, self.readout = linear(d, width), linear(width, 1)
        self.level = nn.Parameter(torch.empty(levels + 1, width))
        nn.init.normal_(self.level, std=1 / math.sqrt(width), generator=generator)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth + 1))
        self.reads = nn.ModuleList(linear(width, 3 * width) for _ in range(depth))  # queries, keys and values
        self.writes = nn.ModuleList(linear(width, width) for _ in range(depth))
        self.up = nn.ModuleList(linear(width, 2 * width) for _ in range(depth))
        self.down = nn.ModuleList(linear(2 * width, width) for _ in range(depth))
        draw([self.first, *self.reads, *self.writes, *self.up, *self.down, self.readout], init, generator)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs f(x): (..., d) to (...)."""
        *norms, last = self.norms
        h = self.first(zooms(x, self.base, self.levels)) + self.level
        blocks = zip(norms[::2], norms[1::2], self.reads, self.writes, self.up, self.down, strict=True)
        for before, between, read, write, up, down in blocks:
            query, key, value = read(before(h)).chunk(3, -1)
            weights = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)
            h = h + write(weights @ value)
            h = h + down(self.activation(up(between(h))))
        return self.readout(last(h).mean(-2)).squeeze(-1)

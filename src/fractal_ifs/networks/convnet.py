"""The convolutional networks of the paper's Figure 7."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fractal_ifs.errors import ConfigError
from fractal_ifs.fractals.numbers import whole
from fractal_ifs.networks.undrawn import initialise, linear, undrawn

KERNEL = 5
INITS = ("paper", "he", "pytorch")
READOUTS = ("flatten", "mean")


class ConvNet(nn.Module):
    """``depth`` layers of 5x5 convolution and ReLU, then a linear readout to the classes (Section 5, Figure 7).

    Convolutions keep the size of the map; 2x2 max-pooling follows each of the first ``pools`` layers.

    Args:
        depth: number of convolutional layers.
        width: channels of every layer, k. Parameters: 25 c k + k + (depth - 1)(25 k^2 + k) and those of the readout.
        channels, size: channels of the input, c, and its height and width in pixels.
        readout: ``flatten``: linear in every value of the last map; ``mean``: in the mean of each channel.
        init: ``paper``, as in the paper's fully connected networks: weights normal of std 1/sqrt(fan in), cut off at
            two std, biases 0.1; ``he``: weights normal of std sqrt(2/fan in), of the readout sqrt(1/fan in), biases 0;
            ``pytorch``: as ``nn.Conv2d`` and ``nn.Linear`` do.
        generator: what draws the weights, one of seed 0 if not given; never the global one.

    Raises ConfigError for a number below 1, an unknown word, or poolings that leave nothing of the map.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        channels: int = 3,
        size: int = 24,
        classes: int = 10,
        pools: int = 2,
        readout: str = "flatten",
        init: str = "paper",
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        for key, value in (("depth", depth), ("width", width), ("channels", channels), ("classes", classes)):
            whole(value, key, 1)
        for key, value, allowed in (("readout", readout, READOUTS), ("init", init, INITS)):
            if value not in allowed:
                raise ConfigError(f"model.{key}={value}: must be one of {', '.join(allowed)}")
        side = final_size(size, depth, pools)
        self.depth, self.width, self.pools, self.flatten = depth, width, pools, readout == "flatten"
        inputs = [channels] + [width] * (depth - 1)
        layers = [undrawn(nn.Conv2d(c, width, KERNEL, padding=KERNEL // 2, device="meta", dtype=dtype)) for c in inputs]
        features = width * side**2 if self.flatten else width
        self.hidden = nn.ModuleList(layers)
        self.readout = linear(features, classes, dtype)
        generator = generator or torch.Generator().manual_seed(0)
        with torch.no_grad():
            for layer in layers:
                initialise(layer, init, generator, gain=math.sqrt(2))
            initialise(self.readout, init, generator)

    def forward(self, x: Tensor) -> Tensor:
        """The logits: (b, channels, size, size) to (b, classes)."""
        for number, layer in enumerate(self.hidden):
            x = layer(x)
            if number < self.pools:
                x = F.max_pool2d(x, 2)
            x = x.relu()  # after pooling: the same bits, from a quarter of the map
        return self.readout(x.flatten(1) if self.flatten else x.mean((2, 3)))


def final_size(size: int, depth: int, pools: int) -> int:
    """Height and width of the last map, in pixels. Raises ConfigError where poolings leave nothing of it."""
    halvings = min(depth, pools)
    if size >> halvings < 1:
        raise ConfigError(
            f"model.pools={pools}: {halvings} poolings of 2x2 leave nothing of {size}x{size} pixels at depth={depth}; "
            f"at most {max(size, 1).bit_length() - 1}"
        )
    return size >> halvings


def multiplications(
    depth: int, width: int, channels: int = 3, size: int = 24, classes: int = 10, pools: int = 2, flatten: bool = True
) -> int:
    """The multiplications that the forward pass of one image takes, with those of padding; FLOPs are twice as many."""
    total, inputs = 0, channels
    for number in range(depth):
        total += KERNEL**2 * inputs * width * size**2
        inputs = width
        if number < pools:
            size //= 2
    return total + classes * width * (size**2 if flatten else 1)

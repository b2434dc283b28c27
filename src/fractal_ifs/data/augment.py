"""The image pipeline of TensorFlow's CIFAR-10 tutorial (Figure 7), for whole batches on the device of the images.

In training: a random crop, a random flip left to right, random brightness and contrast. In testing: the central crop.
Then each image is standardised. Each image has its own random numbers, a function of the seed and the step.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fractal_ifs.config.data import ImageData
from fractal_ifs.data.seeds import uniforms


class Draws(NamedTuple):
    """The random numbers of some batches of images: arrays (steps, b)."""

    top: np.ndarray  # int64: the first row of the crop
    left: np.ndarray  # int64: its first column
    flip: np.ndarray  # bool: whether the crop is flipped left to right
    delta: np.ndarray  # float64: added to every pixel, whose range is 0 to 255
    factor: np.ndarray  # float64: contrast, multiplies each pixel's difference from its channel's mean


def draw(seed: int, step: int, steps: int, batch: int, size: int, data: ImageData) -> Draws:
    """The draws (steps, batch) of ``steps`` steps from ``step`` on, for images of ``size`` x ``size`` pixels.

    The crop is uniform over all places. A flip has probability 1/2. ``delta`` is uniform in +-``data.brightness``, and
    ``factor`` in the interval ``data.contrast``.
    """
    u = uniforms(seed, step, steps, batch * 5).reshape(steps, batch, 5)
    places = size - data.crop + 1
    top, left = (np.minimum((u[..., i] * places).astype(np.int64), places - 1) for i in (0, 1))
    low, high = data.contrast
    delta, factor = (2 * u[..., 3] - 1) * data.brightness, low + (high - low) * u[..., 4]
    return Draws(top, left, u[..., 2] < 0.5, delta, factor)


def pack(images: np.ndarray) -> Tensor:
    """Pack images (n, c, h, w) of bytes, c at most 4, into (n, h, w) of int32: one pixel is the 4 bytes of one number.

    Then a crop, flipped or not, is one gather of int32.
    """
    n, channels, height, width = images.shape
    pixels = np.zeros((n, height, width, 4), np.uint8)
    pixels[..., :channels] = images.transpose(0, 2, 3, 1)
    return torch.from_numpy(pixels.view(np.int32)[..., 0])


def crop(pixels: Tensor, channels: int, rows: Tensor, top: Tensor, left: Tensor, flip: Tensor, size: int) -> Tensor:
    """Crops (b, c, size, size) uint8 of the packed images ``pixels[rows]``. rows, top, left and flip are (b,)."""
    _, height, width = pixels.shape
    span = torch.arange(size, device=pixels.device)
    line = (rows * height + top)[:, None] + span
    column = left[:, None] + torch.where(flip[:, None], span.flip(0), span)
    words = pixels.view(-1).index_select(0, (line[:, :, None] * width + column[:, None, :]).view(-1))
    planes = words.view(torch.uint8).view(len(rows), size * size, 4)[..., :channels].mT.contiguous()
    return planes.view(len(rows), channels, size, size)


def standardise(x: Tensor, delta: Tensor, factor: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Brightness, contrast and standardisation of crops (b, c, h, w); delta and factor are (b,), float64.

    Brightness adds delta to every pixel. Contrast multiplies a pixel's difference from its channel's mean by factor.
    Standardisation subtracts the image's mean and divides by its standard deviation or 1/sqrt(c h w), whichever is
    larger. Together they are one linear map per image and channel, computed from the channels' means and variances.
    (Standardisation removes delta again, so brightness has no effect in the tutorial.)
    """
    b, channels, height, width = x.shape
    # Minus 128, so that the numbers are small enough for float32 to sum their squares exactly.
    x = x.view(b, channels, height * width).to(dtype).sub_(128)
    mean = x.mean(2).double()
    with torch.autocast(x.device.type, enabled=False):  # it would compute the sums in bfloat16
        squares = torch.linalg.vecdot(x, x).double()
    variance = (squares / x.shape[2] - mean**2).clamp_(min=0)
    shifted = mean + delta[:, None]  # the channels' means, which contrast doesn't change
    centre = shifted.mean(1, keepdim=True)
    total = factor**2 * variance.mean(1) + shifted.var(1, correction=0)
    deviation = total.sqrt().clamp(min=(channels * height * width) ** -0.5)[:, None]
    scale, offset = factor[:, None] / deviation, (shifted - centre - factor[:, None] * mean) / deviation
    return torch.addcmul(offset.to(dtype)[..., None], x, scale.to(dtype)[..., None]).view(b, channels, height, width)


def central(pixels: Tensor, channels: int, rows: Tensor, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Central crops (b, c, size, size) of the packed images ``pixels[rows]``, standardised, as used in testing."""
    zero = torch.zeros_like(rows)
    top, left = ((side - size) // 2 for side in pixels.shape[1:])
    plain = zero.double()
    crops = crop(pixels, channels, rows, zero + top, zero + left, zero.bool(), size)
    return standardise(crops, plain, plain + 1, dtype)

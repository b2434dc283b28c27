"""The image pipeline of TensorFlow's CIFAR-10 tutorial, a batch at a time and on the device of the images.

For training a random crop, a random flip left to right, random brightness and contrast; at test time the central crop;
then each image is standardised. Every image has its own numbers, and they are a function of the seed and the step.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fractal_ifs.config.data import ImageData
from fractal_ifs.data.seeds import uniforms


class Draws(NamedTuple):
    """What is drawn for each image: arrays of one shape, for a batch (b,) or for many of them (steps, b)."""

    top: Any  # int64: the crop's first row and column
    left: Any
    flip: Any  # bool: left to right
    delta: Any  # float: added to every pixel, in units of a pixel's 0..255
    factor: Any  # float: what contrasts within a channel are multiplied by


def draw(seed: int, step: int, steps: int, batch: int, size: int, data: ImageData) -> Draws:
    """The draws (steps, batch) of some steps, for images of ``size`` pixels square; ``data`` is the config group.

    The crop is uniform over all its places, a flip has probability 1/2, delta is uniform in +-``data.brightness`` and
    factor in the interval ``data.contrast``.
    """
    u = uniforms(seed, step, steps, batch * 5).reshape(steps, batch, 5)
    places = size - data.crop + 1
    top, left = (np.minimum((u[..., i] * places).astype(np.int64), places - 1) for i in (0, 1))
    low, high = data.contrast
    delta, factor = (2 * u[..., 3] - 1) * data.brightness, low + (high - low) * u[..., 4]
    return Draws(top, left, u[..., 2] < 0.5, delta, factor)


def pack(images: np.ndarray) -> Tensor:
    """Images (n, c, h, w) of bytes, c at most 4, as (n, h, w): a pixel is the four bytes of an int32.

    So a crop, flipped or not, is one gather of words.
    """
    n, channels, height, width = images.shape
    pixels = np.zeros((n, height, width, 4), np.uint8)
    pixels[..., :channels] = images.transpose(0, 2, 3, 1)
    return torch.from_numpy(pixels.view(np.int32)[..., 0])


def crop(pixels: Tensor, channels: int, rows: Tensor, top: Tensor, left: Tensor, flip: Tensor, size: int) -> Tensor:
    """Crops (b, c, size, size) uint8 of packed images (n, h, w); rows, top, left and flip are (b,)."""
    _, height, width = pixels.shape
    span = torch.arange(size, device=pixels.device)
    line = (rows * height + top)[:, None] + span
    column = left[:, None] + torch.where(flip[:, None], span.flip(0), span)
    words = pixels.view(-1).index_select(0, (line[:, :, None] * width + column[:, None, :]).view(-1))
    planes = words.view(torch.uint8).view(len(rows), size * size, 4)[..., :channels].mT.contiguous()
    return planes.view(len(rows), channels, size, size)


def standardise(x: Tensor, delta: Tensor, factor: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Brightness, contrast and standardisation of crops (b, c, h, w); delta and factor are (b,), float64.

    Brightness adds delta to every pixel; contrast moves each from its channel's mean by the factor; standardisation
    subtracts the image's mean and divides by its standard deviation, or by 1/sqrt(c h w) where that is larger. In all a
    linear map per image and channel, made from the channels' means and variances. (So delta cancels: the tutorial's
    brightness does nothing before its standardisation.)
    """
    b, channels, height, width = x.shape
    x = x.view(b, channels, height * width).to(dtype).sub_(128)  # so that float32 sums of squares are exact
    mean = x.mean(2).double()
    with torch.autocast(x.device.type, enabled=False):  # which would take them in 8 bits
        squares = torch.linalg.vecdot(x, x).double()
    variance = (squares / x.shape[2] - mean**2).clamp_(min=0)
    shifted = mean + delta[:, None]  # the channels' means, which contrast leaves
    centre = shifted.mean(1, keepdim=True)
    total = factor**2 * variance.mean(1) + shifted.var(1, correction=0)
    deviation = total.sqrt().clamp(min=(channels * height * width) ** -0.5)[:, None]
    scale, offset = factor[:, None] / deviation, (shifted - centre - factor[:, None] * mean) / deviation
    return torch.addcmul(offset.to(dtype)[..., None], x, scale.to(dtype)[..., None]).view(b, channels, height, width)


def central(pixels: Tensor, channels: int, rows: Tensor, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The central crops of some packed images, standardised: what a network is tested on."""
    zero = torch.zeros_like(rows)
    top, left = ((side - size) // 2 for side in pixels.shape[1:])
    plain = zero.double()
    crops = crop(pixels, channels, rows, zero + top, zero + left, zero.bool(), size)
    return standardise(crops, plain, plain + 1, dtype)

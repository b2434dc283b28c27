"""checkpoint.pt and the checkpoint before it: all that a run needs to go on with the same bits."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from fractal_ifs.files import written

if TYPE_CHECKING:  # ``sweeps.finished`` imports this module and must not wait for torch
    from torch import Tensor

log = logging.getLogger(__name__)

CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")


class Checkpoint(TypedDict):
    """The content of a checkpoint. Vectors (P,) are on the CPU, in the order of the network's parameters."""

    format: int
    fingerprint: str
    d: int  # dimension of a point, or channels of an image
    params: Tensor  # in layer-wise training, of the whole network
    exp_avg: Tensor  # Adam's moments; in layer-wise training, of the layer in training
    exp_avg_sq: Tensor
    step: int  # in layer-wise training, of the layer in training
    seconds: float
    loss_sum: float  # since the last evaluation
    loss_steps: int
    best: tuple[float, int]  # test accuracy, and the step at which it was measured
    history: list[tuple[Any, ...]]  # ``records.Evaluation``, as plain tuples
    wandb_id: str | None
    isa: NotRequired[str | None]  # earlier checkpoints lack this and the next two
    native_build: NotRequired[str | None]
    versions: NotRequired[dict[str, Any]]
    torch_kernels: NotRequired[str | None]  # later than these three
    layer: NotRequired[int]  # layer-wise training only, like the next one: which layer is in training
    layer_params: NotRequired[Tensor]  # this layer and its readout


def write_checkpoint(directory: Path, state: Checkpoint) -> None:
    """Keep the two newest checkpoints. If this one can't be written (a full disk), the two before it stay.

    Raises OSError.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    newest, previous = (directory / name for name in CHECKPOINTS)
    with written(newest, buffer.getvalue()) as temporary:
        if newest.exists():
            os.replace(newest, previous)
        os.replace(temporary, newest)


def read_checkpoint(directory: Path) -> Checkpoint | None:
    """The newest checkpoint that can be read, or None. Code in a checkpoint is never run."""
    import torch

    for name in CHECKPOINTS:
        path = directory / name
        if path.exists():
            try:
                return torch.load(path, weights_only=True)
            except Exception as error:  # a torn file can raise almost anything
                log.warning("%s can't be read (%s): falling back", path, type(error).__name__)
    return None

"""A trained network in a file that others read: by torch's own roads, for any number of points at a time."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# (torch.export, torch.jit and torch.onnx declare few of their types)

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Generator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fractal_ifs.errors import ConfigError, message, short

Format = Literal["torch_export", "onnx", "torchscript", "state_dict"]


def exported(network: nn.Module, example: Tensor, to: Format) -> bytes:
    """The content of a file with a network.

    Args:
        example: inputs as the network takes them, at least two along the first axis, which stays free.
        to: ``torch_export``: for ``torch.export.load(file).module()``; ``onnx``: for any runtime of ONNX, with the
            input ``x`` and the output ``f``; ``torchscript``: for ``torch.jit.load``, which torch itself replaces by
            ``torch_export``; ``state_dict``: for ``torch.load(file, weights_only=True)``.

    Raises ConfigError where torch can't export this network so.
    """
    network = network.eval()
    buffer = io.BytesIO()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Of torch, about its own parts: that TorchScript is deprecated, and what its exporters call.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"torch|copyreg")
            if to == "state_dict":
                torch.save(network.state_dict(), buffer)
            elif to == "torchscript":
                torch.jit.save(torch.jit.trace(network, example), buffer)
            else:
                shapes = ({0: torch.export.Dim("n", min=1)},)
                program = torch.export.export(network, (example,), dynamic_shapes=shapes)
                if to == "torch_export":
                    torch.export.save(program, buffer)
                else:
                    names: Any = {"input_names": ["x"], "output_names": ["f"], "verbose": False}
                    with _quiet("torch.onnx"):  # which warns of packages that no network here needs
                        made: Any = torch.onnx.export(program, (example,), dynamo=True, **names)
                    return made.model_proto.SerializeToString()
    except Exception as error:  # a network of a user's own may do what they can't follow
        raise ConfigError(f"--format {to}: torch can't export this network: {short(message(error), 300)}") from None
    return buffer.getvalue()


@contextlib.contextmanager
def _quiet(name: str) -> Generator[None]:
    """Within: the loggers of a package tell errors alone."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)

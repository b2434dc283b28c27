"""checkpoint.pt and the checkpoint before it: all that a run needs to go on with the same bits.

A checkpoint holds a digest of its content. It is compared before anything of it is used, with the archive's checksums,
because a network with one wrong bit trains on like any other. Plain torch finds the networks in it too, as state_dicts:
``network.load_state_dict(torch.load("checkpoint.pt", weights_only=True)["best_state_dict"])``.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NotRequired, TypedDict, cast

from fractal_ifs.errors import Damaged, Refused, reason, short
from fractal_ifs.files import LARGEST, opened, written

if TYPE_CHECKING:  # ``sweeps.finished`` imports this module and must not wait for torch
    from torch import Tensor

FORMAT = 3  # of checkpoints; 3 has state_dicts, which a reader of 2 refuses
CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")  # the newest, and the one before it
ENTRIES = 10_000  # more than torch.save makes of a checkpoint, also of a network with many buffers
STATE_DICTS = ("state_dict", "best_state_dict")  # for plain torch: views of params and best_params, never read here
# What its pickle calls, as "module name". torch.load takes more kinds, and a bytearray may be of any size.
CALLS = (
    "torch._utils _rebuild_tensor_v2",
    "collections OrderedDict",
    *(f"torch {kind}Storage" for kind in ("Float", "Double")),
    *(
        f"torch {kind}Storage" for kind in ("Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
    ),  # buffers
)


class Checkpoint(TypedDict):
    """The content of a checkpoint. Vectors (P,) are on the CPU, in the order of the network's parameters."""

    format: int
    fingerprint: str
    d: int  # dimension of a point, or channels of an image
    params: Tensor  # in layer-wise training, of the whole network
    exp_avg: Tensor  # Adam's moments, or SGD's momentum; in layer-wise training, of the layer in training
    exp_avg_sq: Tensor
    step: int  # in layer-wise training, of the layer in training
    seconds: float
    loss_sum: float  # since the last evaluation
    loss_steps: int
    best: tuple[float, int]  # test accuracy, and the step at which it was measured
    history: list[tuple[Any, ...]]  # ``history.Evaluation``, as plain tuples, without the numbers of measures
    wandb_id: str | None
    digest: NotRequired[str]  # ``digest`` of all other entries; earlier checkpoints lack it and the next five
    engine: NotRequired[str | None]
    isa: NotRequired[str | None]
    native_build: NotRequired[str | None]
    versions: NotRequired[dict[str, Any]]
    torch_kernels: NotRequired[str | None]
    columns: NotRequired[dict[str, int]]  # the columns of measures in the history, numbered; none without measures
    measured: NotRequired[Tensor]  # (rows * columns,) float64, nan where a number is missing
    val_points: NotRequired[int]  # on which ``val_acc`` was measured; none where it wasn't
    average: NotRequired[Tensor]  # of the weights, where the config asks for one: what was evaluated
    lightning: NotRequired[str]  # engine=lightning only: what Lightning knows of the run, in JSON
    layer: NotRequired[int]  # layer-wise training only, like the next one: which layer is in training
    layer_params: NotRequired[Tensor]  # this layer and its readout
    buffers: NotRequired[Tensor]  # of a network that has some, see ``runs.buffers``
    best_params: NotRequired[Tensor]  # of the whole network at ``best``; none before there is one, nor in format 2
    best_buffers: NotRequired[Tensor]
    state_dict: NotRequired[Mapping[str, Tensor]]  # see ``STATE_DICTS``
    best_state_dict: NotRequired[Mapping[str, Tensor]]


def write_checkpoint(directory: Path, state: Checkpoint) -> None:
    """Keep the two newest checkpoints. If this one can't be written (a full disk), the two before it stay.

    Its content is on the disk when this returns. The renames may still be lost with the power: then the two before are
    there. Raises OSError.
    """
    import torch

    buffer = io.BytesIO()
    torch.save({**state, "digest": digest(state)}, buffer)
    newest, previous = (directory / name for name in CHECKPOINTS)
    with written(newest, buffer.getvalue()) as temporary:
        if newest.exists():
            os.replace(newest, previous)
        os.replace(temporary, newest)


def read_whole(path: Path, most: int = LARGEST) -> Checkpoint:
    """The checkpoint in a file, as it was written, without its state_dicts.

    Code in it is never run, and what it takes in memory is as much as its file has bytes.

    Args:
        most: bytes that the file may have.

    Raises FileNotFoundError where there is none, Damaged for anything else that isn't a whole checkpoint, and Refused
    for one of a later format. Whether it belongs to a run, ``shapes.check`` says.
    """
    import torch

    try:
        with opened(path, most) as file:
            _check_archive(file)
            file.seek(0)
            found: object = torch.load(file, map_location="cpu", weights_only=True)
    except (FileNotFoundError, Damaged):
        raise
    except Exception as error:  # a damaged file can raise almost anything
        raise Damaged(reason(error)) from None
    state = _typed(found)
    if "digest" in state and state["digest"] != digest(state):
        raise Damaged("its content has another digest")
    return state


def digest(state: Mapping[str, Any]) -> str:
    """The SHA-256 of the content of a checkpoint, without its own entry ``digest`` and its state_dicts."""
    found = hashlib.sha256()
    for name in sorted({*state} - {*STATE_DICTS}):
        value = state[name]
        if _is_tensor(value):
            found.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
            found.update(_bytes(value))
        elif name != "digest":
            found.update(json.dumps([name, value]).encode())
    return found.hexdigest()


def weights_digest(vector: Tensor) -> str:
    """The SHA-256 of a network's parameters (P,), which a record names."""
    return hashlib.sha256(_bytes(vector)).hexdigest()


def evaluated(state: Checkpoint) -> Tensor:
    """The weights that were evaluated: their average where there is one, else those of the last step."""
    return state.get("average", state["params"])


def _bytes(vector: Tensor) -> memoryview:
    return vector.numpy().data


def _check_archive(file: BinaryIO) -> None:
    """Raises Damaged for no checkpoint's archive: torn, packed, with a wrong checksum, or with other objects."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = {entry.filename for entry in entries}
        if len(names) < len(entries) or len(names) > ENTRIES:
            raise Damaged("an archive that isn't a checkpoint's")
        if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries):
            raise Damaged("a packed archive, which no checkpoint is")
        if sum(e.file_size for e in entries) > file.seek(0, io.SEEK_END):
            raise Damaged("an archive of more bytes than its file has")
        if (name := archive.testzip()) is not None:
            raise Damaged(f"{short(name)} has another checksum")
        for entry in entries:
            if entry.filename.lower().endswith("data.pkl"):  # torch doesn't tell small letters from large ones
                for operation, argument, _ in pickletools.genops(archive.read(entry)):
                    if operation.name == "GLOBAL" and argument not in CALLS:
                        raise Damaged(f"it holds a {short(argument)}, which no checkpoint does")


def _typed(found: object) -> Checkpoint:
    """What was loaded, if it has all entries of a checkpoint, with their types. Raises Damaged, or Refused."""
    if not isinstance(found, dict):
        raise Damaged("not a checkpoint")
    state = cast(dict[Any, Any], found)
    number: Any = state.get("format")
    if _count(number) and number > FORMAT:
        raise Refused(f"format {number}; this version reads up to {FORMAT}, update it")
    for name in STATE_DICTS:
        state.pop(name, None)
    if missing := [name for name in _REQUIRED if name not in state]:
        raise Damaged(f"it has no {missing[0]}")
    entries = {**_REQUIRED, **_OPTIONAL}
    for name, value in state.items():
        if not (_line(name) and entries.get(name, _unknown)(value)):
            raise Damaged(f"its {short(name)} can't be right")
    return cast(Checkpoint, state)


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _vector(value: Any) -> bool:
    import torch

    return (
        type(value) is torch.Tensor
        and (value.dtype, value.layout) in ((torch.float32, torch.strided), (torch.float64, torch.strided))
        and value.device.type == "cpu"
        and value.dim() == 1
        and value.is_contiguous()  # not one number that claims to be many
        and not value.requires_grad
    )


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _line(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 10_000 and value.isprintable()


def _json(value: Any) -> bool:
    """A mapping in JSON that isn't long: a checkpoint may have a mebibyte besides its vectors and its history."""
    try:
        return isinstance(value, str) and len(value) < 1 << 19 and isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return False


def _line_or_none(value: Any) -> bool:
    return value is None or _line(value)


def _number(value: Any) -> bool:
    return type(value) is float or _count(value)


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _best(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(cast(Any, value)) == 2 and _share(value[0]) and _count(value[1])


def _history(value: Any) -> bool:
    """Rows (step, seconds, train_loss, test_loss, test_acc), with rising steps."""
    if not isinstance(value, list):
        return False
    before = -1
    for each in cast(list[Any], value):
        if not isinstance(each, tuple):
            return False
        row = cast(tuple[Any, ...], each)
        if not (
            len(row) == 5 and _count(row[0]) and row[0] > before and all(map(_number, row[1:4])) and _share(row[4])
        ):
            return False
        before = row[0]
    return True


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool) or _number(value) or _line(value)


def _versions(value: Any) -> bool:
    return isinstance(value, dict) and all(_line(k) and _scalar(v) for k, v in cast(dict[Any, Any], value).items())


def _columns(value: Any) -> bool:
    """Names of columns, numbered from 0."""
    return (
        isinstance(value, dict)
        and all(map(_line, found := cast(dict[Any, Any], value)))
        and [*found.values()] == [*range(len(found))]
    )


def _unknown(value: Any) -> bool:
    """An entry of a later version of the same format."""
    return _scalar(value) or _versions(value) or _vector(value)


_REQUIRED: dict[str, Callable[[Any], bool]] = {
    "format": _count,
    "fingerprint": _line,
    "d": _count,
    "params": _vector,
    "exp_avg": _vector,
    "exp_avg_sq": _vector,
    "step": _count,
    "seconds": lambda value: _number(value) and math.isfinite(value) and value >= 0,
    "loss_sum": _number,
    "loss_steps": _count,
    "best": _best,
    "history": _history,
    "wandb_id": _line_or_none,
}
_OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "digest": _line,
    "engine": _line_or_none,
    "isa": _line_or_none,
    "native_build": _line_or_none,
    "torch_kernels": _line_or_none,
    "versions": _versions,
    "columns": _columns,
    "measured": _vector,
    "val_points": _count,
    "average": _vector,
    "lightning": _json,
    "layer": _count,
    "layer_params": _vector,
    "buffers": _vector,
    "best_params": _vector,
    "best_buffers": _vector,
}

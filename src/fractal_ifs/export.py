"""``python -m fractal_ifs.export DIR -o FILE``: the network of a finished run, in a file that others read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from fractal_ifs.config.options import path
from fractal_ifs.errors import ConfigError, told
from fractal_ifs.extras import require
from fractal_ifs.help.layout import Examples, Parser, program
from fractal_ifs.streams import command

# As ``networks.export.Format``, which would import torch; with the ending that means it.
FORMATS = {"torch_export": ".pt2", "onnx": ".onnx", "torchscript": "", "state_dict": ""}


def parser() -> Parser:
    """The command's options."""
    text = """
        Write the network of a finished run into a file that needs nothing of this package.

        torch_export is for torch.export.load(FILE).module(), onnx for any runtime of ONNX, state_dict for
        torch.load(FILE, weights_only=True). torchscript, for torch.jit.load, is deprecated by torch itself. A
        network takes any number of points at a time. onnx needs the extra 'onnx', pip install 'fractal_ifs[onnx]'.
        """
    given: Examples = (
        ("multirun/one/RUN -o network.pt2", ""),
        ("multirun/one/RUN --best -o network.onnx", "the network at the best test accuracy, not the last"),
    )
    out = Parser(program("export"), text, given)
    out.add_argument("run", type=path, metavar="DIR", help="the directory of a finished run")
    out.add_argument("-o", "--output", type=path, required=True, metavar="FILE", help="where it is written")
    which = f"one of {', '.join(FORMATS)}; default: what FILE ends with, .pt2 or .onnx"
    out.add_argument("--format", choices=FORMATS, metavar="FORMAT", help=which)
    out.add_argument("--best", action="store_true", help="the network at the run's best test accuracy; else the last")
    return out


def export(run: Path, output: Path, to: str | None = None, best: bool = False) -> str:
    """Write a run's network. Returns a line that says which it is. Raises ConfigError, and OSError.

    Args:
        to: one of ``FORMATS``. None: what ``output`` ends with.
    """
    to = to or next((name for name, ending in FORMATS.items() if ending and output.suffix == ending), None)
    if to is None:
        raise ConfigError(f"-o {output}: must end with .pt2 or .onnx, or stand beside --format {'|'.join(FORMATS)}")
    if to == "onnx":
        require("onnx")
    import torch

    from fractal_ifs.config.data import ImageData
    from fractal_ifs.files import write
    from fractal_ifs.networks.export import Format, exported
    from fractal_ifs.runs.files import check_output
    from fractal_ifs.runs.load import load

    assert to in get_args(Format)
    check_output(output)
    found = load(run, best)
    first: Any = next(found.model.parameters())
    data = found.config.data
    if isinstance(data, ImageData):
        channels = next(p for p in found.model.parameters() if p.dim() == 4).shape[1]
        example = torch.zeros(2, channels, data.crop, data.crop, dtype=first.dtype)
    else:
        example = torch.zeros(2, found.config.fractal.ifs.d, dtype=first.dtype)
    write(output, exported(found.model, example, to))  # pyright: ignore[reportArgumentType]  (one of them)
    measured = "" if found.accuracy is None else f", test accuracy {found.accuracy:.4f}"
    return f"{output}: the {'best' if best else 'last'} network, of step {found.step:,}{measured}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = parser().parse_args(arguments)
    with told():
        print(export(given.run, given.output, given.format, given.best))


if __name__ == "__main__":
    command(main)

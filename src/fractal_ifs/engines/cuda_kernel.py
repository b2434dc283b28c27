"""The source of the cuda engine's kernel for a shape: constants, and the layout of shared memory, before its text.

A block of threads trains one network, whose weights and activations are in the shared memory of a multiprocessor. So a
shape is covered if they fit: at depth 5 and batches of 100, about 60 units on a GPU with 227 KiB.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fractal_ifs.config.model import MLPModel
from fractal_ifs.config.optimizer import Sgd
from fractal_ifs.config.run import RunConfig

LOSSES = ("hinge", "logistic", "squared", "squared_hinge", "exponential")
OPTIMIZERS = ("adam", "adamw", "sgd")
MOST_INPUTS, MOST_WIDTH, MOST_DEPTH, MOST_BATCH = 8, 128, 8, 128

WIDE = 40  # units from which on a thread computes larger tiles
REGISTERS = 120  # of the up to 255 that a thread has, for what it keeps of its parameters
MOST_THREADS = 512
MULTIPROCESSOR = 228 << 10, 65_536  # bytes of shared memory and registers of the larger ones: H100, H200
RESERVED = 1 << 10  # bytes of shared memory that each block has besides
LEAST_REGISTERS = 96  # of a thread, below which many would spill
PARTS, MOST_PARTS = 4, 12  # that a sum over the batch is cut into, if there are threads: usually, and at most
SLICE = 1024  # points that a block measures
MOST_POINTS = 65_535 * SLICE  # a launch has at most so many blocks along y


class MLPProgram(NamedTuple):
    """What distinguishes two kernels. Runs that differ in anything else train in one launch."""

    inputs: int
    width: int
    depth: int
    batch: int
    sum_last: bool
    loss: str
    moments: int  # per parameter: 2 of Adam, 1 of SGD with momentum
    clips: bool
    averages: bool

    functions = "train", "measure"

    @property
    def title(self) -> str:
        """What it is, for messages."""
        return f"the kernel of width {self.width}"

    @classmethod
    def of(cls, config: RunConfig, inputs: int) -> MLPProgram:
        """The program of a run whose points have so many coordinates."""
        optimizer = config.optimizer
        moments = int(optimizer.momentum > 0) if isinstance(optimizer, Sgd) else 2
        sums = isinstance(config.model, MLPModel) and config.model.sums
        shape = (inputs, config.width, config.depth, config.batch_size, sums, config.loss.name)
        return cls(*shape, moments, optimizer.clip is not None, optimizer.average != "none")

    def layout(self) -> MLPLayout:
        """The layout of its block."""
        return _layout(self)

    def source(self) -> str:
        """The whole source, for NVRTC or a C++ compiler."""
        layout = self.layout()
        numbers = {name.upper(): int(value) for name, value in {**self._asdict(), "loss": 0}.items()}
        numbers["LOSS"] = LOSSES.index(self.loss)
        numbers |= {loss.upper(): number for number, loss in enumerate(LOSSES)}
        numbers |= {name.upper(): value for name, value in layout._asdict().items()}
        numbers |= {"SLICE": SLICE, "BLOCKS": layout.blocks}
        lines = [f"constexpr int {name} = {value};" for name, value in numbers.items()]
        return "\n".join([*lines, _text()])


class MLPLayout(NamedTuple):
    """The threads of a block and its shared memory, whose places are in floats. cuda_kernel.cuh says what they hold."""

    threads: int
    each: int  # largest number of parameters of a layer that a thread has
    units: int  # the width, up to a multiple of 4
    points: int  # of a batch, up to a multiple of 4
    weight_row: int
    point_row: int
    tile_points: int
    tile_units: int
    tile_rows: int
    split: int  # parts that the sums over the batch are cut into: of the inner layers,
    first_split: int  # of the first one
    top_split: int  # of the readout
    weights: int
    hidden: int
    sum: int
    points_x: int
    points_y: int
    slopes: int
    losses: int
    parts: int
    top_parts: int
    few: int
    floats: int

    @property
    def bytes(self) -> int:
        """Of shared memory."""
        return 4 * self.floats

    @property
    def room(self) -> int:
        """How many fit a multiprocessor's shared memory."""
        return MULTIPROCESSOR[0] // (self.bytes + RESERVED)

    @property
    def blocks(self) -> int:
        """How many a multiprocessor is to have room for: what shared memory allows, if registers hardly spill then."""
        return max(1, min(self.room, MULTIPROCESSOR[1] // (LEAST_REGISTERS * self.threads)))


def uncovered(config: RunConfig, inputs: int) -> str | None:
    """The key for which no kernel can train a run, on whatever GPU, as the begin of a sentence; None if there is none.

    The keys of the model, but for width and depth, are looked at elsewhere.
    """
    if config.loss.name not in LOSSES:
        return f"loss={config.loss.name}: the cuda engine has {', '.join(LOSSES)}"
    if config.optimizer.name not in OPTIMIZERS:
        return f"optimizer={config.optimizer.name}: the cuda engine has {', '.join(OPTIMIZERS)}"
    if config.trainer.precision != "32-true":
        return f"trainer.precision={config.trainer.precision}: the cuda engine computes in float32"
    if config.training != "joint":
        return f"training={config.training}: the cuda engine trains all layers together"
    for key, value, most in (
        ("data.train_size", config.data.train_size, MOST_POINTS),
        ("data.test_size", config.data.test_size, MOST_POINTS),
        ("data.val_size", config.data.val_size, MOST_POINTS),
        ("fractal.d", inputs, MOST_INPUTS),
        ("width", config.width, MOST_WIDTH),
        ("depth", config.depth, MOST_DEPTH),
        ("batch_size", config.batch_size, MOST_BATCH),
    ):
        if value > most:
            return f"{key}={value}: the cuda engine has at most {most}"
    return None


@lru_cache
def _text() -> str:
    return Path(__file__).with_name("cuda_kernel.cuh").read_text(encoding="utf-8")


def _row(length: int) -> int:
    """Floats from row to row: a multiple of 4, but not of 8, so that 8 rows begin in 8 different quads of banks."""
    quads = -(-length // 4)
    return 4 * (quads + (quads + 1) % 2)


def tiles(program: MLPProgram) -> tuple[int, int, int]:
    """Quads of points and of units that a thread computes of a product, and quads of inputs, by 4 units, of a gradient.

    Of n by m quads a thread reads n + m quads for 16 n m multiplications; but at small widths there would be less than
    a thread for each lane. With 3 quads of units, 13 quads, as of width 50, make 125 tiles, one warp for each scheduler
    of a multiprocessor, where 2 quads of points make 169, so two for some; and 4 quads are read for 48 multiplications,
    not 3 for 32. That is counted, not measured. With more units, or fewer threads, registers would spill.
    """
    if 44 < program.width <= 52 and program.depth > 3:
        return 1, 3, 2
    return (2, 1, 2) if program.width >= WIDE else (1, 1, 1)


@lru_cache
def _layout(program: MLPProgram) -> MLPLayout:
    """With sums over the batch in as many parts as leave the number of blocks: where there are few, threads are idle.

    At width 10 a gradient in 4 parts is the work of 36 of 128 threads, in 12 that of 108: counted, not measured.
    """
    usual = _of_parts(program, PARTS)
    several = (_of_parts(program, parts) for parts in range(MOST_PARTS, PARTS, -1))
    return next((found for found in several if found.room >= usual.blocks), usual)


def _of_parts(program: MLPProgram, most: int) -> MLPLayout:
    width, depth, inputs = program.width, program.depth, program.inputs
    units, points = -(-width // 4) * 4, -(-program.batch // 4) * 4
    weight_row, point_row = _row(units), _row(points)
    tile_points, tile_units, tile_rows = tiles(program)
    in_tiles = -(-points // (4 * tile_points)) * -(-units // (4 * tile_units))
    kept = program.moments + program.averages + program.clips
    moments = (depth - 1) * (units + 1) * units * kept
    needed = max(in_tiles, points, -(-moments // REGISTERS))
    threads = min(MOST_THREADS, -(-needed // 128) * 128)  # a multiprocessor has four schedulers, for 32 each

    def split(rows: int) -> int:
        in_rows = -(-rows // (4 * tile_rows)) * (units // 4)
        return max(1, min(threads // in_rows, points // 4, most))

    first_split, inner_split = split(inputs), split(units)
    top_split = max(1, min(threads // (width + 1), points // 4, most))
    sizes = {
        "weights": (inputs + 1 + (depth - 1) * (units + 1)) * weight_row + width + 1,
        "hidden": depth * units * point_row,
        "sum": units * point_row if program.sum_last and depth > 2 else 0,
        "points_x": inputs * point_row,
        "points_y": points,
        "slopes": points,
        "losses": points,
        "parts": max(
            threads,
            first_split * (inputs + 1) * weight_row,
            inner_split * (units + 1) * weight_row if depth > 1 else 0,
        ),
        "top_parts": top_split * (width + 1),
        "few": 32,
    }
    places: dict[str, int] = {}
    at = 0
    for name, size in sizes.items():
        places[name] = at
        at += -(-size // 4) * 4
    parameters = [(inputs + 1) * units, width + 1, (units + 1) * units if depth > 1 else 0]
    return MLPLayout(
        threads,
        -(-max(parameters) // threads),
        units,
        points,
        weight_row,
        point_row,
        tile_points,
        tile_units,
        tile_rows,
        inner_split,
        first_split,
        top_split,
        **places,
        floats=at,
    )

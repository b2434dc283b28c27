"""The keywords of ``fractal_ifs.run`` and ``sweep``, for editors and notebooks: all keys, typed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

from fractal_ifs.config.interval import Interval


def signature(function: Callable[..., Any], keywords: type[Values] | type[Lists]) -> inspect.Signature:
    """That of a function of any keywords, with all keys by their names."""
    *own, others = inspect.signature(function).parameters.values()
    kind, left = inspect.Parameter.KEYWORD_ONLY, {parameter.name for parameter in own}
    keys = [inspect.Parameter(name, kind, default=...) for name in keywords.__annotations__ if name not in left]
    return inspect.Signature([*own, *keys, others])


# Written by tests/test_keywords.py from the typed keys.
class Values(TypedDict, total=False):
    """A value for each key."""

    fractal: str | int
    curve: str | int
    data: str | int
    model: str | int
    loss: str | int
    optimizer: str | int
    schedule: str | int
    stop: str | int
    trainer: str | int
    logger: str | int | Sequence[str]
    callbacks: str | int | Sequence[str]
    depth: int
    width: int
    lr: float
    training: Literal["joint", "layerwise"]
    batch_size: int
    steps: int
    eval_every: int
    seed: int
    measures: Sequence[str]
    measure_start: bool
    objective: Literal["test_acc", "val_acc"]
    engine: Literal["auto", "native", "cuda", "torch", "lightning"]
    workers: int
    sweep: str
    kept: str
    continue_from: str
    overwrite: bool
    data__train_size: int
    data__test_size: int
    data__margin: float
    data__balanced: bool
    data__val_size: int
    data__overlaps: Literal["once", "repeated"]
    data__dir: str | None
    data__verify: bool
    data__crop: int
    data__augment: bool
    data__brightness: float
    data__contrast: Sequence[float]
    data__url: str | None
    model__init: Literal["paper", "theory", "pytorch", "he"]
    model__sum_last: bool
    model__activation: Literal["relu", "leaky", "gelu", "tanh", "sine"]
    model__norm: Literal["none", "layer"]
    model__skip: Literal["none", "residual", "sum"]
    model__expansion: float
    model__base: int
    model__levels: int
    model__noise: float
    model__gamma: float | None
    model__pools: int
    model__readout: Literal["flatten", "mean"]
    optimizer__weight_decay: float
    optimizer__clip: float | None
    optimizer__average: Literal["none", "ema", "swa"]
    optimizer__average_decay: float
    optimizer__average_begin: int
    optimizer__betas: Sequence[float]
    optimizer__eps: float
    optimizer__momentum: float
    optimizer__nesterov: bool
    schedule__warmup: int
    schedule__final: float
    schedule__every: int
    schedule__gamma: float
    schedule__half: int
    stop__accuracy: float | None
    stop__patience: int | None
    trainer__accelerator: Literal["cpu", "gpu", "auto"]
    trainer__devices: int
    trainer__strategy: Literal["auto", "ddp", "fsdp"]
    trainer__precision: Literal["32-true", "bf16-mixed", "64-true"]
    trainer__draw: Literal["float32", "precision"]
    trainer__compile: bool
    trainer__cuda_graphs: bool | None
    trainer__tf32: bool
    trainer__channels_last: bool
    trainer__threads: int
    logger__project: str
    logger__group: str | None
    logger__tags: Sequence[str]
    logger__notes: str | None
    logger__entity: str | None
    logger__mode: Literal["online", "offline", "disabled"] | None
    logger__timeout: float
    budget: str
    protocol: str
    experiment: str | None
    hydra__searchpath: Sequence[str]
    fractal__depth: int
    curve__weights: Sequence[float]
    curve__last: int


class Lists(TypedDict, total=False):
    """A value for each key, or several."""

    fractal: str | int | Sequence[str | int]
    curve: str | int | Sequence[str | int]
    data: str | int | Sequence[str | int]
    model: str | int | Sequence[str | int]
    loss: str | int | Sequence[str | int]
    optimizer: str | int | Sequence[str | int]
    schedule: str | int | Sequence[str | int]
    stop: str | int | Sequence[str | int]
    trainer: str | int | Sequence[str | int]
    logger: str | int | Sequence[str] | Sequence[str | int | Sequence[str]]
    callbacks: str | int | Sequence[str] | Sequence[str | int | Sequence[str]]
    depth: int | Sequence[int] | Interval
    width: int | Sequence[int] | Interval
    lr: float | Sequence[float] | Interval
    training: Literal["joint", "layerwise"] | Sequence[Literal["joint", "layerwise"]]
    batch_size: int | Sequence[int] | Interval
    steps: int | Sequence[int] | Interval
    eval_every: int | Sequence[int] | Interval
    seed: int | Sequence[int] | Interval
    measures: Sequence[str] | Sequence[Sequence[str]]
    measure_start: bool | Sequence[bool]
    objective: Literal["test_acc", "val_acc"] | Sequence[Literal["test_acc", "val_acc"]]
    engine: (
        Literal["auto", "native", "cuda", "torch", "lightning"]
        | Sequence[Literal["auto", "native", "cuda", "torch", "lightning"]]
    )
    workers: int | Sequence[int] | Interval
    sweep: str | Sequence[str]
    kept: str | Sequence[str]
    continue_from: str | Sequence[str]
    overwrite: bool | Sequence[bool]
    data__train_size: int | Sequence[int] | Interval
    data__test_size: int | Sequence[int] | Interval
    data__margin: float | Sequence[float] | Interval
    data__balanced: bool | Sequence[bool]
    data__val_size: int | Sequence[int] | Interval
    data__overlaps: Literal["once", "repeated"] | Sequence[Literal["once", "repeated"]]
    data__dir: str | Sequence[str | None] | None
    data__verify: bool | Sequence[bool]
    data__crop: int | Sequence[int] | Interval
    data__augment: bool | Sequence[bool]
    data__brightness: float | Sequence[float] | Interval
    data__contrast: Sequence[float] | Sequence[Sequence[float]]
    data__url: str | Sequence[str | None] | None
    model__init: Literal["paper", "theory", "pytorch", "he"] | Sequence[Literal["paper", "theory", "pytorch", "he"]]
    model__sum_last: bool | Sequence[bool]
    model__activation: (
        Literal["relu", "leaky", "gelu", "tanh", "sine"] | Sequence[Literal["relu", "leaky", "gelu", "tanh", "sine"]]
    )
    model__norm: Literal["none", "layer"] | Sequence[Literal["none", "layer"]]
    model__skip: Literal["none", "residual", "sum"] | Sequence[Literal["none", "residual", "sum"]]
    model__expansion: float | Sequence[float] | Interval
    model__base: int | Sequence[int] | Interval
    model__levels: int | Sequence[int] | Interval
    model__noise: float | Sequence[float] | Interval
    model__gamma: float | Sequence[float | None] | Interval | None
    model__pools: int | Sequence[int] | Interval
    model__readout: Literal["flatten", "mean"] | Sequence[Literal["flatten", "mean"]]
    optimizer__weight_decay: float | Sequence[float] | Interval
    optimizer__clip: float | Sequence[float | None] | Interval | None
    optimizer__average: Literal["none", "ema", "swa"] | Sequence[Literal["none", "ema", "swa"]]
    optimizer__average_decay: float | Sequence[float] | Interval
    optimizer__average_begin: int | Sequence[int] | Interval
    optimizer__betas: Sequence[float] | Sequence[Sequence[float]]
    optimizer__eps: float | Sequence[float] | Interval
    optimizer__momentum: float | Sequence[float] | Interval
    optimizer__nesterov: bool | Sequence[bool]
    schedule__warmup: int | Sequence[int] | Interval
    schedule__final: float | Sequence[float] | Interval
    schedule__every: int | Sequence[int] | Interval
    schedule__gamma: float | Sequence[float] | Interval
    schedule__half: int | Sequence[int] | Interval
    stop__accuracy: float | Sequence[float | None] | Interval | None
    stop__patience: int | Sequence[int | None] | Interval | None
    trainer__accelerator: Literal["cpu", "gpu", "auto"] | Sequence[Literal["cpu", "gpu", "auto"]]
    trainer__devices: int | Sequence[int] | Interval
    trainer__strategy: Literal["auto", "ddp", "fsdp"] | Sequence[Literal["auto", "ddp", "fsdp"]]
    trainer__precision: (
        Literal["32-true", "bf16-mixed", "64-true"] | Sequence[Literal["32-true", "bf16-mixed", "64-true"]]
    )
    trainer__draw: Literal["float32", "precision"] | Sequence[Literal["float32", "precision"]]
    trainer__compile: bool | Sequence[bool]
    trainer__cuda_graphs: bool | Sequence[bool | None] | None
    trainer__tf32: bool | Sequence[bool]
    trainer__channels_last: bool | Sequence[bool]
    trainer__threads: int | Sequence[int] | Interval
    logger__project: str | Sequence[str]
    logger__group: str | Sequence[str | None] | None
    logger__tags: Sequence[str] | Sequence[Sequence[str]]
    logger__notes: str | Sequence[str | None] | None
    logger__entity: str | Sequence[str | None] | None
    logger__mode: (
        Literal["online", "offline", "disabled"] | Sequence[Literal["online", "offline", "disabled"] | None] | None
    )
    logger__timeout: float | Sequence[float] | Interval
    budget: str | Sequence[str]
    protocol: str | Sequence[str]
    experiment: str | Sequence[str | None] | None
    hydra__searchpath: Sequence[str]
    fractal__depth: int | Sequence[int] | Interval
    curve__weights: Sequence[float] | Sequence[Sequence[float]]
    curve__last: int | Sequence[int] | Interval
    hydra__sweeper: str

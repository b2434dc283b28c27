"""Where groups of runs train: ``inline`` in this process, or ``local`` in one worker process per GPU or core.

The native engine has threads of its own and trains inline. The torch engine uses one thread per process on CPUs: two
threads in each of two processes cost ten times more than one in each.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import Any

from fractal_ifs import engines
from fractal_ifs.config import Job
from fractal_ifs.training import Training, cores, group, train

Outcome = dict[str, Any] | Exception


def execute(
    jobs: Sequence[Job], executor: str, stack: int, report: Callable[[Training], None]
) -> Iterator[tuple[list[int], list[Outcome]]]:
    """Train jobs, in groups that one engine can hold, largest first; yields (jobs' numbers, outcomes) as they end.

    An outcome is a record, or the exception that the job failed with.
    """
    groups = group(jobs)
    parallel: list[list[int]] = []
    for numbers in groups:
        config = jobs[numbers[0]].config
        name, _ = engines.choose(config)
        workers = processes(config)
        if executor == "inline" or name == "native" or workers == 1 or len(jobs) == 1:
            yield numbers, train_group([jobs[n] for n in numbers], stack, report)
        else:
            parallel += shares(numbers, workers)
    if parallel:
        yield from _local(jobs, parallel, stack)


def shares(numbers: list[int], workers: int) -> list[list[int]]:
    """A group dealt out to the workers, so that each gets runs of every length."""
    return [share for worker in range(workers) if (share := numbers[worker::workers])]


def processes(config: dict[str, Any]) -> int:
    """How many worker processes a group of the torch engine takes: the GPUs, or the cores, or ``workers`` of them."""
    if config["trainer"]["accelerator"] == "cpu":
        return config["workers"] or cores()
    return config["workers"] or len(gpus())


def gpus() -> list[str]:
    """The GPUs this process may use, as names for CUDA_VISIBLE_DEVICES."""
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return visible.split(",")
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def train_group(jobs: Sequence[Job], stack: int, report: Callable[[Training], None] | None = None) -> list[Outcome]:
    """Train a group in this process."""
    outcomes = train(jobs, threads=jobs[0].config["workers"], stack=stack, report=report)
    return [outcome if isinstance(outcome, Exception) else outcome.record() for outcome in outcomes]


def _local(jobs: Sequence[Job], groups: list[list[int]], stack: int) -> Iterator[tuple[list[int], list[Outcome]]]:
    config = jobs[groups[0][0]].config
    on_gpus = config["trainer"]["accelerator"] != "cpu"
    count = min(processes(config), len(groups))
    context = multiprocessing.get_context("spawn")
    devices = context.SimpleQueue()
    for device in (gpus() if on_gpus else [""] * count)[:count]:
        devices.put(device)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_pin, initargs=(devices,))
    try:
        futures: dict[Future, list[int]] = {
            pool.submit(train_group, [jobs[n] for n in numbers], stack): numbers for numbers in groups
        }
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except Exception as error:  # the worker itself died: its jobs have failed, the others go on
                yield futures[future], [error] * len(futures[future])
    except KeyboardInterrupt:
        for process in (getattr(pool, "_processes", None) or {}).values():
            os.kill(process.pid, signal.SIGINT)  # each worker checkpoints its runs
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _pin(devices: Any) -> None:
    """A worker's own GPU, before anything there touches CUDA."""
    device = devices.get()
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device

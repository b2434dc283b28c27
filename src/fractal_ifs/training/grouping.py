"""Decides which jobs train together, and in which order."""

from collections.abc import Sequence

from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.engines.choice import choose
from fractal_ifs.engines.steps import StepRule
from fractal_ifs.networks.convnet import multiplications


def groups_of(jobs: Sequence[Job]) -> list[list[int]]:
    """Groups of jobs that train together, as lists of indices into ``jobs``.

    Jobs of the native engine form one group, those of the torch engine one group per shape, and each job of the conv
    engine and of Lightning trains alone. Groups, and the jobs in a group, are sorted by cost, largest first; of equals
    those with the same data stand together, which share them while they train.
    """
    first: dict[tuple[object, ...], int] = {}  # of the jobs with the same data
    order: list[tuple[float, int]] = []
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, job in enumerate(jobs):
        c = job.config
        engine = choose(c).engine
        key: tuple[object, ...] = (engine, c.trainer)
        if engine == "torch":
            key += (c.depth, c.width, c.batch_size, c.loss, StepRule.of(c.optimizer), c.model.architecture)
            key += (c.training, c.fractal.ifs.d)  # layer-wise networks have a readout in each layer
        elif engine in ("conv", "lightning"):
            key += (number,)  # alone: convolutions of several networks at once are no faster
        groups.setdefault(key, []).append(number)
        order.append((-cost(c), first.setdefault((c.fractal, c.curve, c.data, c.seed), number)))
    ordered = [sorted(numbers, key=order.__getitem__) for numbers in groups.values()]
    return sorted(ordered, key=lambda numbers: -sum(cost(jobs[n].config) for n in numbers))


def cost(config: RunConfig) -> float:
    """A rough number of multiplications in a run, by which runs are ordered."""
    return config.steps * step_cost(config)


def step_cost(config: RunConfig) -> float:
    """The same of one step. From width 10 to 200 the native engine takes a time in proportion, to 10%."""
    if config.model.name == "cnn":
        return config.batch_size * float(multiplications(config.depth, config.width))
    return config.batch_size * float(config.depth * config.width**2 + 1000)

"""Which jobs train together, and in what order."""

from collections.abc import Sequence

from fractal_ifs.config.model import MLPModel
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.engines.choice import choose
from fractal_ifs.networks.convnet import multiplications


def groups_of(jobs: Sequence[Job]) -> list[list[int]]:
    """Which jobs can train together: all of the native engine's; of the torch engine's, those of one shape; of
    the conv engine's, each alone.

    Groups, and the runs within, come largest first.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, job in enumerate(jobs):
        c = job.config
        engine = choose(c).engine
        key: tuple[object, ...] = (engine, c.trainer)
        if engine == "torch":
            sum_last = isinstance(c.model, MLPModel) and c.model.sum_last
            key += (c.depth, c.width, c.batch_size, c.loss, c.optimizer, sum_last, c.fractal.ifs.d)
        elif engine == "conv":
            key += (number,)  # convolutions over a run axis are no faster than one network after the other
        groups.setdefault(key, []).append(number)
    ordered = [sorted(numbers, key=lambda n: -cost(jobs[n].config)) for numbers in groups.values()]
    return sorted(ordered, key=lambda numbers: -sum(cost(jobs[n].config) for n in numbers))


def cost(config: RunConfig) -> float:
    """Multiplications of a run, about: to order runs by."""
    if config.model.name == "cnn":
        return config.steps * config.batch_size * float(multiplications(config.depth, config.width))
    return config.steps * config.batch_size * (config.depth * config.width**2 + 1000)

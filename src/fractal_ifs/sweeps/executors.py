"""Where groups of runs train: ``inline``, in this process, or ``local``, in worker processes, by default one per GPU
or core. ``auto`` is ``local``, but for a sweep that has ended before worker processes would have begun.

The native engine has its own threads and always trains inline. On CPUs the torch engine uses one thread per process:
two threads in each of two processes are ten times slower than one in each. CNNs have several processes on each GPU: a
single one can't launch their kernels as fast as the GPU computes them.
"""

from collections.abc import Callable, Generator, Sequence
from functools import partial

from fractal_ifs.config.machine import cnns_of_a_gpu, cores, gpus
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.engines.choice import choose
from fractal_ifs.sweeps.crew import Crew, on_devices
from fractal_ifs.sweeps.work import Outcome, train_group
from fractal_ifs.training.grouping import groups_of, step_cost
from fractal_ifs.training.rounds import SweepRounds
from fractal_ifs.training.standing import Standing
from fractal_ifs.training.train import process_threads

BRIEF_SECONDS = 5.0  # about what it takes to start worker processes, mostly their imports
STEP_SECONDS, MULTIPLICATION_SECONDS = 1e-3, 6e-10  # of PyTorch on one core, roughly, with the passes back


def execute(
    jobs: Sequence[Job],
    executor: str,
    stack: int,
    report: Callable[[SweepRounds], None],
    told: Callable[[Sequence[int], SweepRounds | Standing], None],
) -> Generator[tuple[list[int], list[Outcome]]]:
    """Train jobs in groups that one engine can hold, the largest group first.

    Args:
        executor, stack: as in ``sweeps.sweep.train_jobs``.
        report: called after every round of training in this process.
        told: called with the numbers of jobs that train together, when they begin, with what says how far they are; of
            those in another process with how far they are, again and again.

    Yields the numbers and the outcomes of jobs, as they end.
    """
    if executor == "auto" and _brief(jobs):
        executor = "inline"
    groups = groups_of(jobs)
    parallel: dict[tuple[int, str], list[list[int]]] = {}  # by how many workers may train such groups, and on what
    for numbers in groups:
        config = jobs[numbers[0]].config
        name = choose(config).engine
        if config.trainer.devices > 1:
            for number in numbers:
                yield [number], [on_devices(jobs[number], number, told)]
            continue
        workers = processes(config)
        if executor == "inline" or name == "native" or workers == 1 or len(jobs) == 1:
            yield numbers, train_group([jobs[n] for n in numbers], stack, report, partial(told, numbers))
        else:
            parallel.setdefault((workers, config.trainer.accelerator), []).extend(shares(numbers, workers))
    crew = Crew(jobs, stack)
    for (workers, _), some in parallel.items():
        yield from crew.train(some, workers, told)


def _brief(jobs: Sequence[Job]) -> bool:
    """Whether no worker is asked for, and all jobs one after another take no longer than worker processes to start."""
    if any(c.workers or c.trainer.accelerator != "cpu" or not c.synthetic for c in (job.config for job in jobs)):
        return False
    return sum(map(_seconds, jobs)) < BRIEF_SECONDS


def _seconds(job: Job) -> float:
    """About how long a job takes, evaluations included: a pass through the network costs a third of a step."""
    c = job.config
    looks = job.steps / c.eval_every * c.data.test_size / c.batch_size / 3
    return (job.steps + looks) * (STEP_SECONDS + MULTIPLICATION_SECONDS * step_cost(c))


def shares(numbers: list[int], workers: int) -> list[list[int]]:
    """Share out a group among the workers so that each gets runs of every length. Empty shares are left out."""
    return [share for worker in range(workers) if (share := numbers[worker::workers])]


def processes(config: RunConfig) -> int:
    """How many worker processes a group gets that isn't of the native engine: ``workers``, or one per GPU or per core.

    On CPUs there are fewer where each process has several threads, on GPUs more for CNNs.
    """
    if config.trainer.accelerator == "cpu":
        return config.workers or max(1, cores() // process_threads(config))
    return config.workers or len(gpus()) * (cnns_of_a_gpu(config) if choose(config).engine == "conv" else 1)

"""Several worker processes: those that train a sweep's groups, or together one run."""

import logging
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from multiprocessing.connection import wait
from typing import Any

from fractal_ifs.config.machine import gpus
from fractal_ifs.config.run import Job
from fractal_ifs.runs import ddp
from fractal_ifs.sweeps.work import Outcome
from fractal_ifs.sweeps.worker import GpuFailed, Worker, recorded
from fractal_ifs.training import signals
from fractal_ifs.training.standing import Standing

log = logging.getLogger(__name__)


class Crew:
    """Workers that train groups. If one dies, its jobs have failed and the others go on.

    On GPUs they are dealt out like cards. A GPU that doesn't work, or not any more, is left out: its other workers end
    what they train, if they can, and begin nothing. What it has lost goes on elsewhere, but for jobs that have begun on
    two such GPUs. Where a worker runs out of memory beside others of its GPU, they go on without it, and with its jobs;
    the last of them has the GPU to itself.
    """

    def __init__(self, jobs: Sequence[Job], stack: int):
        self.jobs, self.stack = jobs, stack
        self.waiting = deque[list[int]]()
        self.free: list[str | None] = []  # a device for each worker that has nothing to do
        self.busy: dict[Any, Worker] = {}  # by their connections
        self.out = set[str | None]()  # GPUs that are left out
        self.moved = set[int]()  # jobs that have begun on one of these

    def train(
        self, groups: Sequence[list[int]], count: int, told: Callable[[Sequence[int], Standing], None]
    ) -> Iterator[tuple[list[int], list[Outcome]]]:
        """Train groups in at most ``count`` workers, as ``executors.execute`` says."""
        on_cpu = self.jobs[groups[0][0]].config.trainer.accelerator == "cpu"
        dealt = islice(cycle([None] if on_cpu else gpus()), count)
        self.waiting, self.free = deque(groups), [device for device in dealt if device not in self.out][: len(groups)]
        if not self.free:
            lost = self._given_up("all are left out")
            yield list(lost), self._recorded(lost)
        try:
            while self.waiting or self.busy:
                while self.waiting and self.free:
                    self._begin(Worker(self.free.pop(0), self.stack))
                signals.heed()
                for connection in wait(list(self.busy)):
                    worker = self.busy[connection]  # pyright: ignore[reportArgumentType]
                    heard = worker.heard(self.jobs)
                    if isinstance(heard, Standing):
                        told(worker.numbers, heard)
                    elif heard is not None:
                        yield from self._ended(worker, dict(zip(worker.numbers, heard, strict=True)))
        except BaseException:  # a signal, or the end of who asks for the outcomes: no worker goes on unattended
            for worker in self.busy.values():
                worker.interrupt()
            for worker in self.busy.values():
                worker.join(self.jobs)
            raise

    def _begin(self, worker: Worker) -> None:
        """Give a worker the next group."""
        self.busy[worker.connection] = worker
        beside = self._on(worker.device)
        for each in beside:
            each.crowded = len(beside) > 1
        worker.begin(self.waiting.popleft(), self.jobs)

    def _on(self, device: str | None) -> list[Worker]:
        """The workers that are busy on a device."""
        return [worker for worker in self.busy.values() if worker.device == device]

    def _dismiss(self, worker: Worker) -> None:
        self.busy.pop(worker.connection).connection.close()  # this ends it

    def _ended(self, worker: Worker, outcomes: dict[int, Outcome]) -> Iterator[tuple[list[int], list[Outcome]]]:
        """Yields the outcomes of a worker's group, and gives it another, or dismisses it."""
        well = worker.device not in self.out
        if worker.fault and not worker.too_large(outcomes.values()):
            self._dismiss(worker)
            outcomes = self._without(worker, outcomes)
        elif self.waiting and well and worker.process.is_alive():
            yield list(outcomes), list(outcomes.values())
            self._begin(worker)
            return
        else:
            self._dismiss(worker)
            self.free += [worker.device] if well else []
        yield list(outcomes), self._recorded(outcomes)

    def _recorded(self, outcomes: Mapping[int, Outcome]) -> list[Outcome]:
        return [recorded(self.jobs[n], outcome) for n, outcome in outcomes.items()]

    def _given_up(self, why: str | None) -> dict[int, Outcome]:
        """The outcomes of what waits, where no GPU is left."""
        failed = GpuFailed(f"no GPU is left: {why}")
        found: dict[int, Outcome] = {n: failed for group in self.waiting for n in group}
        self.waiting.clear()
        return found

    def _without(self, worker: Worker, outcomes: dict[int, Outcome]) -> dict[int, Outcome]:
        """Go on without a worker, or without its GPU. What it has lost waits again. Returns the outcomes that stand."""
        device = worker.device
        lost = {n for n, outcome in outcomes.items() if isinstance(outcome, Exception)}
        if worker.full and worker.crowded:
            log.warning("GPU %s has a worker less: %s", device, worker.fault)
            if device not in self.out and device not in self.free and not self._on(device):
                self.free.append(device)
        else:
            if device not in self.out:
                log.warning("GPU %s is left out: %s", device, worker.fault)
            self.out.add(device)
            self.free = [other for other in self.free if other not in self.out]
            begun = {n for n in lost if not isinstance(outcomes[n], GpuFailed)}
            lost -= begun & self.moved
            self.moved |= begun  # what has broken two GPUs may be the cause
        if not self.free and all(other.device in self.out for other in self.busy.values()):
            return outcomes | self._given_up(worker.fault)
        if lost:
            self.waiting.append(sorted(lost))
        return {n: outcome for n, outcome in outcomes.items() if n not in lost}


def on_devices(job: Job, number: int, told: Callable[[Sequence[int], Standing], None]) -> Outcome:
    """Train one run in a process per device. Only the first process writes to the run's directory."""
    count, on_cpu = job.config.trainer.devices, job.config.trainer.accelerator == "cpu"
    devices = [None] * count if on_cpu else gpus()[:count]
    with tempfile.TemporaryDirectory() as meeting:
        where = f"{meeting}/ranks", "gloo" if on_cpu else "nccl"
        workers = [Worker(device, 0, ddp.Rank(r, count, *where)) for r, device in enumerate(devices)]
        try:
            for worker in workers:
                worker.begin([0], [job if worker is workers[0] else job._replace(directory=None)])
            signals.heed()
            others = [worker.process.sentinel for worker in workers[1:]]
            while True:
                if workers[0].connection not in wait([workers[0].connection, *others]):
                    workers[0].process.kill()  # another has died, for which it would wait
                heard = workers[0].heard([job])
                if isinstance(heard, list):
                    return recorded(job, heard[0])
                if heard:
                    told([number], heard)
        except BaseException:
            workers[0].interrupt()
            workers[0].join([job])
            raise
        finally:
            workers[0].connection.close()
            for worker in workers[1:]:  # these save nothing, and might wait forever for the first
                if worker.process.pid:
                    worker.process.kill()
                worker.join([job])

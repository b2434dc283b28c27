"""Logs each network as one W&B run. Whatever W&B does, results on disk are unaffected, and training doesn't wait.

Each W&B run has a thread of its own, which keeps it up with the network's history.
"""

import contextlib
import hashlib
import logging
import netrc
import os
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fractal_ifs.config.environment import wandb_mode
from fractal_ifs.config.logger import WandbLogger
from fractal_ifs.config.run import RunConfig
from fractal_ifs.runs.history import Evaluation
from fractal_ifs.runs.records import Status
from fractal_ifs.training import wandb_service
from fractal_ifs.training.wandb_files import logged_steps
from fractal_ifs.training.wandb_service import within

log = logging.getLogger(__name__)

SERVICES = 3  # how many service processes of W&B may die, or hang, before we stop using it
FINISH_SECONDS = 5.0  # for sending a run's last data; who interrupts a sweep waits that long
BEGIN_SECONDS = 45.0  # for W&B to start its service and begin a run, besides the time that it has for the network
ANSWER_SECONDS = 10.0  # for a service process to answer, besides the time that it has for the network
ENDING = 4  # so many runs may be ending in W&B while the next ones train


@dataclass
class Experience:
    """What this process has learned about W&B so far, in all its runs."""

    unreachable: bool = False  # W&B didn't answer: begin all further runs offline, without waiting
    dead_services: int = 0  # how many service processes of W&B have died
    given_up: bool = False  # W&B doesn't even return from its calls
    warnings: set[str] = field(default_factory=set[str])  # those already logged

    def warn(self, text: str) -> None:
        """Log a warning, but only once in this process."""
        if text not in self.warnings:
            self.warnings.add(text)
            log.warning(text)

    def away(self, error: BaseException) -> None:
        """Warn that a run can't be logged there."""
        self.warn(f"W&B is away ({type(error).__name__}: {error}): results are in the run's directory all the same")


experience = Experience()
_beginning = threading.Lock()  # W&B begins one run at a time, and one service
_ending: set["WandbRun"] = set()  # the runs that are told to finish, and have not
_ended = threading.Condition()


def mode(asked: str | None) -> str:
    """The mode of W&B: ``asked``, or $WANDB_MODE, or online. But offline without a login, which W&B would ask for."""
    found = asked or wandb_mode()
    if found not in (None, "online"):
        return found
    if _logged_in():
        return "online"
    if found:
        experience.warn("W&B has no login here (`wandb login`, or WANDB_API_KEY): offline; `wandb sync` sends it later")
    return "offline"


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, ValueError, netrc.NetrcParseError):
        return False


def new_id(config: RunConfig, directory: Path | None) -> str | None:
    """A new id for the W&B run of a network; None if the network isn't logged to W&B."""
    if not isinstance(config.logger, WandbLogger) or directory is None:
        return None
    return hashlib.sha256(str(directory.resolve()).encode() + os.urandom(8)).hexdigest()[:12]


class WandbRun:
    """The W&B run of one network. Its group is the sweep, and its tags are the fractal and the curve.

    Does nothing with other loggers or without a directory. With an ``id``, goes on with the W&B run that has it, and
    logs first what that lacks of ``history``. No method waits, or raises an exception for what happens in W&B.
    """

    def __init__(
        self, config: RunConfig, directory: Path | None, id: str | None = None, history: Sequence[Evaluation] = ()
    ):
        self.id, self.history, self.service = id, history, 0
        self._final: tuple[Status, Mapping[str, Any]] | None = None  # what ``finish`` was told
        self.hurry = False  # whether to give up at once where W&B's service has died, or hangs
        self._over = True
        self._wake = threading.Event()
        logger = config.logger
        if not isinstance(logger, WandbLogger) or directory is None or experience.given_up:
            return
        self.id = self.id or new_id(config, directory)
        self.directory, self.timeout, self.mode = directory, logger.timeout, logger.mode
        self._counts_from = config.counts_from
        tags = {"fractal": config.fractal.name, "curve": config.curve.name}
        if not config.synthetic:
            tags = {"data": config.data.name}
        self.arguments: dict[str, Any] = {
            "project": logger.project,
            "entity": logger.entity,
            "id": self.id,
            "resume": "allow",
            "reinit": "create_new",  # a process has several W&B runs at once
            "dir": str(directory),
            "group": logger.group or config.sweep,
            "notes": logger.notes,
            "job_type": config.model.name,
            "name": directory.name[:120],
            "tags": [*(f"{key}={value}"[:64] for key, value in tags.items()), *logger.tags],
            "config": config.plain(),
        }
        self._over = False
        try:
            threading.Thread(target=self._keep_up, name=f"W&B run {self.id}", daemon=True).start()
        except RuntimeError as error:  # as many threads as this process may have
            self._over = True
            experience.away(error)

    def log(self) -> None:
        """Log what is new in the history, with the best test accuracy so far."""
        self._wake.set()

    def finish(self, status: Status, summary: Mapping[str, Any] | None = None) -> None:
        """End the W&B run, as failed unless ``status`` is a good one, with the values of ``summary``."""
        with _ended:
            if self._over:
                return
            _ending.add(self)
        self._final = status, summary or {}
        self._wake.set()

    def _keep_up(self) -> None:
        """What the thread does. If W&B's service process dies, it begins again in a new one, under the same id."""
        try:
            while True:
                try:
                    return self._follow()
                except (Exception, SystemExit) as error:
                    if self.hurry or not _service_died(error) or experience.dead_services >= SERVICES:
                        raise
                    self._leave_service()
        except (Exception, SystemExit) as error:
            experience.away(error)
        finally:
            with _ended:
                self._over = True
                _ending.discard(self)
                _ended.notify_all()

    def _follow(self) -> None:
        """Begin the W&B run, log what is new in the history whenever there is something, and finish."""
        run, has = self._begin()
        place, best = 0, 0.0
        while True:
            final = self._final  # read before the history, which is whole once this is set
            for row in self.history[place:]:
                place += 1
                if row.finite and row.step > self._counts_from:
                    best = max(best, row.test_acc)
                if row.step not in has:
                    with within(self.timeout):
                        run.log({**row.by_name(), "best_test_acc": best})
            if final is not None:
                return self._finish(run, *final)
            self._wake.wait()
            self._wake.clear()

    def _leave_service(self) -> None:
        """Let W&B forget a service process that has died or hangs, unless another run has done so."""
        with _beginning:
            if self.service != experience.dead_services:
                return
            if wandb_service.late():
                experience.unreachable = True
                experience.warn("W&B's service process doesn't answer: going on offline in a new one")
            else:
                experience.warn("W&B's service process has died: going on in a new one")
            experience.dead_services += 1
            self._end_service()

    def _end_service(self) -> None:
        """End W&B's service process: the next run to begin has a new one."""
        import wandb

        wandb_service.kill()
        os.environ.pop("WANDB_SERVICE", None)  # it may be another process's, as in a shell that a notebook opened
        with contextlib.suppress(Exception, SystemExit), within(self.timeout):
            wandb.teardown()

    def _begin(self) -> tuple[Any, set[int]]:
        """The W&B run, begun or going on, and the steps of the rows that it has."""
        with _beginning:
            self.service = experience.dead_services  # counts up with each new service process
            chosen = "offline" if experience.unreachable else mode(self.mode)
            first = not wandb_service.services()  # of this process, the user's own included
            try:
                run = self._init(chosen)
            except Exception as error:
                if chosen != "online" or _service_died(error):
                    raise
                log.warning("W&B can't be reached (%s): offline; `wandb sync` sends it later", type(error).__name__)
                experience.unreachable = True
                chosen = "offline"
                if first:
                    self._end_service()  # which would keep the id for the attempt online as long as it lives
                run = self._init(chosen)
            finally:
                wandb_service.guard_exit()
            with within(self.timeout):
                run.define_metric("*", step_metric="step")
                return run, self._logged(run if chosen == "online" else None)

    def _init(self, chosen: str) -> Any:
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",
            x_disable_stats=True,
            init_timeout=self.timeout,
            finish_timeout=min(self.timeout, FINISH_SECONDS),
            finish_timeout_raises=True,
        )
        with within(self.timeout + BEGIN_SECONDS), _without_an_empty_mode():
            return wandb.init(**{**self.arguments, "mode": chosen}, settings=settings)

    def _logged(self, online: Any) -> set[int]:
        """The steps of the history whose rows W&B has: in files that are still to be sent, or on its server.

        ``online``: the W&B run, which knows what the server has; None offline.
        """
        if not self.history:
            return set()
        assert self.id is not None
        steps = logged_steps(self.directory, self.id, "offline-" if online else "*")
        if steps is None:
            return {row.step for row in self.history}
        return steps | ({row.step for row in self.history[: online.step]} if online else set[int]())

    def _finish(self, run: Any, status: Status, summary: Mapping[str, Any]) -> None:
        with within(self.timeout):
            run.summary.update({**summary, "status": str(status)})
        try:
            with within(min(self.timeout, FINISH_SECONDS) + (1.0 if self.hurry else ANSWER_SECONDS)):
                run.finish(exit_code=0 if status.well else 1)
        except TimeoutError:
            experience.warn("W&B doesn't take what is left of a run: `wandb sync --no-skip-online` sends it later")


@contextlib.contextmanager
def _without_an_empty_mode() -> Generator[None]:
    """Within: an empty $WANDB_MODE, which counts as unset here and which W&B refuses, is unset."""
    empty = os.environ.get("WANDB_MODE") == ""
    if empty:
        del os.environ["WANDB_MODE"]
    try:
        yield
    finally:
        if empty:
            os.environ["WANDB_MODE"] = ""


def finish_all(endings: Sequence[tuple[WandbRun, Status, Mapping[str, Any]]]) -> bool:
    """Finish W&B runs in a hurry, as an interrupt asks for. Returns False where W&B doesn't take all of it."""
    for run in [*_ending, *(run for run, _, _ in endings)]:
        run.hurry = True
    for run, status, summary in endings:
        run.finish(status, summary)
    if wait(seconds=FINISH_SECONDS + 2):
        return True
    wandb_service.kill()  # it hangs, and would delay the end of this process
    wait(seconds=1)
    return False


def wait(runs: int = 0, seconds: float = float("inf")) -> bool:
    """Wait until all runs but so many that were told to finish have done so. Returns False if that takes longer.

    Each call of W&B has its deadline, so this ends. Then W&B is given up in this process.
    """
    deadline = time.monotonic() + seconds
    with _ended:
        while len(_ending) > runs:
            if time.monotonic() > deadline:
                return False
            if wandb_service.lost():
                experience.warn("W&B doesn't answer: going on without it; results are in the runs' directories")
                experience.given_up = True
                _ending.clear()
            _ended.wait(0.2)
    return True


def _service_died(error: BaseException) -> bool:
    name = type(error).__name__
    starting = name.startswith(("ServicePoll", "ServiceStart"))  # it died as it began
    gone = ("MailboxClosedError", "HandleAbandonedError", "WandbServiceConnectionError")
    other = "WANDB_SERVICE" in str(error)  # of another version of W&B, which it can't read
    return isinstance(error, ConnectionError) or starting or other or name in gone

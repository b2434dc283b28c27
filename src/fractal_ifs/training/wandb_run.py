"""Logs each network as one W&B run. Whatever W&B does, the results on disk are unaffected."""

import contextlib
import hashlib
import logging
import netrc
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fractal_ifs.config.environment import wandb_mode
from fractal_ifs.config.logger import WandbLogger
from fractal_ifs.config.run import RunConfig
from fractal_ifs.runs.records import Evaluation, Status

log = logging.getLogger(__name__)

SERVICES = 3  # how many service processes of W&B may die before we stop using it
FINISH_SECONDS = 5.0  # for sending a run's last data; who interrupts a sweep waits that long


@dataclass
class Experience:
    """What this process has learned about W&B so far, in all its runs."""

    unreachable: bool = False  # W&B didn't answer: begin all further runs offline, without waiting
    slow: bool = False  # a run didn't end in time: end runs in the background, until the next one begins online
    dead_services: int = 0  # how many service processes of W&B have died
    warnings: set[str] = field(default_factory=set[str])  # those already logged

    def reset(self) -> None:
        """Forget everything, as in a new process."""
        self.unreachable, self.slow, self.dead_services = False, False, 0
        self.warnings.clear()

    def warn(self, text: str) -> None:
        """Log a warning, but only once in this process."""
        if text not in self.warnings:
            self.warnings.add(text)
            log.warning(text)


experience = Experience()


def mode(asked: str | None) -> str:
    """The mode of W&B: ``asked``, or $WANDB_MODE, or online if the user is logged in, else offline.

    So W&B never asks a new user to log in.
    """
    if found := asked or wandb_mode():
        return found
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return "online" if netrc.netrc(os.environ.get("NETRC")).authenticators(host) else "offline"
    except (OSError, ValueError, netrc.NetrcParseError):
        return "offline"


def new_id(config: RunConfig, directory: Path | None) -> str | None:
    """A new id for the W&B run of a network; None if the network isn't logged to W&B."""
    if not isinstance(config.logger, WandbLogger) or directory is None:
        return None
    return hashlib.sha256(str(directory.resolve()).encode() + os.urandom(8)).hexdigest()[:12]


class WandbRun:
    """The W&B run of one network. Its group is the sweep, and its tags are the fractal and the curve.

    Does nothing with other loggers or without a directory. With an ``id``, goes on with the W&B run that has it.
    No method raises an exception for what happens in W&B.
    """

    def __init__(self, config: RunConfig, directory: Path | None, id: str | None = None):
        self.run: Any = None
        self.id, self.service, self.online = id, 0, False
        logger = config.logger
        if not isinstance(logger, WandbLogger) or directory is None:
            return
        self.id = self.id or new_id(config, directory)
        self.timeout, self.mode = logger.timeout, logger.mode
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
            "group": config.sweep,
            "job_type": config.model.name,
            "name": directory.name[:120],
            "tags": [f"{key}={value}"[:64] for key, value in tags.items()],
            "config": config.plain(),
        }
        self._tried(self._begin)

    def _begin(self) -> None:
        import wandb

        self.service = experience.dead_services  # counts up with each new service process
        quiet: dict[str, Any] = {
            "silent": True,
            "console": "off",
            "x_disable_stats": True,
            "init_timeout": self.timeout,
            "finish_timeout": min(self.timeout, FINISH_SECONDS),  # so that a lost connection doesn't delay the sweep
            "finish_timeout_raises": True,
        }

        def init(chosen: str) -> None:
            self.arguments["mode"] = chosen
            self.run = wandb.init(**self.arguments, settings=wandb.Settings(**quiet))

        chosen = "offline" if experience.unreachable else mode(self.mode)
        try:
            init(chosen)
        except Exception as error:
            if chosen != "online" or _service_died(error):
                raise
            log.warning("W&B can't be reached (%s): offline; `wandb sync` sends it later", type(error).__name__)
            experience.unreachable = True
            chosen = "offline"
            init(chosen)
        self.online = chosen == "online"
        if self.online:
            experience.slow = False
        self.run.define_metric("*", step_metric="step")

    def _tried(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call ``action``. If W&B's service process has died, begin again in a new one under the same id, and retry."""
        try:
            try:
                action(*arguments)
            except Exception as error:
                if not _service_died(error) or experience.dead_services >= SERVICES:
                    raise
                if self.service == experience.dead_services:  # no other run has noticed it yet
                    import wandb

                    experience.dead_services += 1
                    experience.warn("W&B's service process has died: going on in a new one")
                    with contextlib.suppress(Exception):
                        wandb.teardown()
                self._begin()
                if action != self._begin:
                    action(*arguments)
        except Exception as error:
            experience.warn(
                f"W&B is away ({type(error).__name__}: {error}): results are in the run's directory all the same"
            )
            self.run = None

    def log(self, row: Evaluation, best: float) -> None:
        """Log a row of the history, and the best test accuracy so far."""
        if self.run is not None:
            self._tried(lambda: self.run.log({**row._asdict(), "best_test_acc": best}))

    def finish(self, status: Status, summary: Mapping[str, Any] | None = None) -> None:
        """End the W&B run, as failed unless ``status`` is finished, with the values of ``summary``."""
        if self.run is None:
            return
        if self.online and experience.slow:  # may take long, so don't wait for it
            threading.Thread(target=self._tried, args=(self._finish, status, summary or {})).start()
        else:
            self._tried(self._finish, status, summary or {})

    def _finish(self, status: Status, summary: Mapping[str, Any]) -> None:
        run, self.run = self.run, None
        run.summary.update({**summary, "status": str(status)})
        try:
            run.finish(exit_code=0 if status == Status.FINISHED else 1)
        except TimeoutError:
            experience.slow = True
            experience.warn("W&B doesn't take what is left of a run: `wandb sync` sends it later")


def finish_all(endings: Sequence[tuple[WandbRun, Status, Mapping[str, Any]]], seconds: float) -> bool:
    """Finish W&B runs at the same time. Returns False if that takes longer; then it goes on in the background."""
    threads = [
        threading.Thread(target=logged._tried, args=(logged._finish, status, summary), daemon=True)
        for logged, status, summary in endings
        if logged.run
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    return not any(thread.is_alive() for thread in threads)


def _service_died(error: Exception) -> bool:
    return isinstance(error, ConnectionError) or type(error).__name__ in ("MailboxClosedError", "HandleAbandonedError")

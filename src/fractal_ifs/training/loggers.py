"""W&B, one run per network; whatever happens to it, the result on disk is not touched."""

import contextlib
import hashlib
import logging
import netrc
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fractal_ifs.config.logger import WandbLogger
from fractal_ifs.config.run import RunConfig
from fractal_ifs.runs.records import Evaluation, Status

log = logging.getLogger(__name__)

_unreachable: list[bool] = []  # not empty once W&B was waited for in vain: this process doesn't wait again
_slow: list[bool] = []  # not empty from where a run didn't end in time, until the next one begins
_services: list[bool] = []  # an entry for each service process of W&B that has died under us
_told: set[str] = set()  # what was said already
SERVICES = 3  # that may die before we leave W&B alone
FINISH_SECONDS = 5.0  # for a run's last data to be sent: whoever interrupts a sweep waits for that


def mode(asked: str | None) -> str:
    """``asked``, or $WANDB_MODE, or online for who is logged in, else offline: a newcomer is never asked to log in."""
    if found := asked or os.environ.get("WANDB_MODE"):
        return found
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return "online" if netrc.netrc(os.environ.get("NETRC")).authenticators(host) else "offline"
    except (OSError, netrc.NetrcParseError):
        return "offline"


def new_id(config: RunConfig, directory: Path | None) -> str | None:
    """An id for the W&B run of a network; None where it has none."""
    if not isinstance(config.logger, WandbLogger) or directory is None:
        return None
    return hashlib.sha256(str(directory.resolve()).encode() + os.urandom(8)).hexdigest()[:12]


class Wandb:
    """The W&B run of one network: group = sweep, tags = fractal and curve, summary ``best_test_acc`` a plain number.

    Does nothing for other loggers, or without a directory. ``id`` is that of W&B; one that is given goes on.
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
            "reinit": "create_new",  # several at a time in one process, never merged
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

        self.service = len(_services)
        quiet = {"silent": True, "console": "off", "x_disable_stats": True, "init_timeout": self.timeout}
        if "finish_timeout" in wandb.Settings.model_fields:  # a network that went away doesn't hold up the sweep
            quiet |= {"finish_timeout": min(self.timeout, FINISH_SECONDS), "finish_timeout_raises": True}
        chosen = "offline" if _unreachable else mode(self.mode)
        try:
            self.run = wandb.init(**self.arguments, mode=chosen, settings=wandb.Settings(**quiet))  # type: ignore[arg-type]
        except Exception as error:
            if chosen != "online" or _service_died(error):
                raise
            log.warning("W&B can't be reached (%s): offline; `wandb sync` sends it later", type(error).__name__)
            _unreachable.append(True)
            self.run = wandb.init(**self.arguments, mode="offline", settings=wandb.Settings(**quiet))  # type: ignore[arg-type]
            chosen = "offline"
        self.online = chosen == "online"
        if self.online:
            _slow.clear()
        self.run.define_metric("*", step_metric="step")

    def _tried(self, action: Any, *arguments: Any) -> None:
        """Do it; once more where W&B's service process has died, in a new one and under the same id."""
        try:
            try:
                action(*arguments)
            except Exception as error:
                if not _service_died(error) or len(_services) >= SERVICES:
                    raise
                if self.service == len(_services):  # the first to notice
                    import wandb

                    _services.append(True)
                    _tell("W&B's service process has died: going on in a new one")
                    with contextlib.suppress(Exception):
                        wandb.teardown()
                self._begin()
                if action != self._begin:
                    action(*arguments)
        except Exception as error:
            _tell(f"W&B is away ({type(error).__name__}: {error}): results are in the run's directory all the same")
            self.run = None

    def log(self, row: Evaluation, best: float) -> None:
        """A row of the history, at its true optimizer step."""
        if self.run is not None:
            self._tried(lambda: self.run.log({**row._asdict(), "best_test_acc": best}))

    def finish(self, status: Status, summary: Mapping[str, Any] | None = None) -> None:
        """End the W&B run: as failed, unless the run is finished."""
        if self.run is None:
            return
        if self.online and _slow:  # it waits for as long as it may, beside us
            threading.Thread(target=self._tried, args=(self._finish, status, summary or {})).start()
        else:
            self._tried(self._finish, status, summary or {})

    def _finish(self, status: Status, summary: Mapping[str, Any]) -> None:
        run, self.run = self.run, None
        run.summary.update({**summary, "status": str(status)})
        try:
            run.finish(exit_code=0 if status == Status.FINISHED else 1)
        except TimeoutError:
            _slow.append(True)
            _tell("W&B doesn't take what is left of a run: `wandb sync` sends it later")


def finish_all(endings: Sequence[tuple[Wandb, Status, Mapping[str, Any]]], seconds: float) -> bool:
    """Finish W&B runs side by side; False where that takes longer, and goes on in the background."""
    threads = [
        threading.Thread(target=wandb._tried, args=(wandb._finish, *rest), daemon=True)
        for wandb, *rest in endings
        if wandb.run
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    return not any(thread.is_alive() for thread in threads)


def _service_died(error: Exception) -> bool:
    return isinstance(error, ConnectionError) or type(error).__name__ in ("MailboxClosedError", "HandleAbandonedError")


def _tell(text: str) -> None:
    """Once in a process, however many runs it is true of."""
    if text not in _told:
        _told.add(text)
        log.warning(text)

"""W&B, one run per network; whatever happens to it, the result on disk is not touched."""

import hashlib
import logging
import netrc
import os
from typing import Any

from fractal_ifs.runs import Run, keys_of

log = logging.getLogger(__name__)

_unreachable: list[
    bool
] = []  # not empty once W&B was waited for in vain: the other runs of this process don't wait again


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


class Wandb:
    """The W&B run of one network: group = sweep, tags = fractal and curve, summary ``best_test_acc`` a plain number."""

    def __init__(self, run: Run):
        self.run: Any = None
        settings, config = run.config["logger"], run.config
        if settings["name"] != "wandb" or run.directory is None:
            return
        try:
            import wandb

            if run.wandb_id is None:
                run.wandb_id = hashlib.sha256(str(run.directory.resolve()).encode() + os.urandom(8)).hexdigest()[:12]
            keys = keys_of(config)
            arguments: dict[str, Any] = {
                "project": settings["project"],
                "entity": settings["entity"],
                "id": run.wandb_id,
                "resume": "allow",
                "reinit": "create_new",  # several at a time in one process, never merged
                "dir": str(run.directory),
                "group": config["sweep"],
                "job_type": config["model"]["name"],
                "name": run.directory.name[:120],
                "tags": [f"fractal={keys['fractal']}"[:64], f"curve={keys['curve']}"[:64]],
                "config": config,
            }
            quiet = {"silent": True, "console": "off", "x_disable_stats": True, "init_timeout": settings["timeout"]}
            if "finish_timeout" in wandb.Settings.model_fields:  # a network that went away doesn't hold up the sweep
                quiet |= {"finish_timeout": float(settings["timeout"]), "finish_timeout_raises": True}
            chosen = "offline" if _unreachable else mode(settings["mode"])
            try:
                self.run = wandb.init(**arguments, mode=chosen, settings=wandb.Settings(**quiet))  # type: ignore[arg-type]
            except Exception as error:
                if chosen != "online":
                    raise
                log.warning("W&B can't be reached (%s): offline; `wandb sync` sends it later", type(error).__name__)
                _unreachable.append(True)
                self.run = wandb.init(**arguments, mode="offline", settings=wandb.Settings(**quiet))  # type: ignore[arg-type]
            self.run.define_metric("*", step_metric="step")
        except Exception as error:
            self._away(error)

    def _away(self, error: Exception) -> None:
        log.warning(
            "W&B is away (%s: %s): results are in the run's directory all the same", type(error).__name__, error
        )
        self.run = None

    def log(self, row: dict[str, float], best: float) -> None:
        """A row of the history, at its true optimizer step."""
        if self.run is not None:
            try:
                self.run.log({**row, "best_test_acc": best})
            except Exception as error:
                self._away(error)

    def finish(self, run: Run) -> None:
        if self.run is not None:
            try:
                self.run.summary.update(
                    {"best_test_acc": run.best_test_acc, "best_step": run.best_step, "status": run.status}
                )
                self.run.finish(exit_code=0 if run.status == "finished" else 1)
            except Exception as error:
                self._away(error)
            self.run = None

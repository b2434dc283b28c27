"""``python -m fractal_ifs.train [-m] KEY=VALUE ...``: train one network, or with ``-m`` a sweep of them."""

if __name__ == "__main__":
    from fractal_ifs.streams import beginning

    beginning()


import contextlib
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import to_absolute_path
from omegaconf import DictConfig

from fractal_ifs import streams
from fractal_ifs.config.compose import parse
from fractal_ifs.config.data import ImageData
from fractal_ifs.config.machine import check_writable
from fractal_ifs.config.messages import refusals
from fractal_ifs.config.plugins import check_plugin_keys, maximize_accuracy
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.config.session import VERSION_BASE, JobFunction, register
from fractal_ifs.config.trust import check_trust
from fractal_ifs.errors import ConfigError, counted, message, of_system, told
from fractal_ifs.files import CONF
from fractal_ifs.help.before_hydra import answered
from fractal_ifs.help.options import options_and_words
from fractal_ifs.help.train import screen
from fractal_ifs.runs.records import Status
from fractal_ifs.sweeps.driver import JobsFailed, begin_command, failed, show_failed, swept, was_said
from fractal_ifs.sweeps.finished import best_of, check_objective, finished_jobs
from fractal_ifs.training import signals


def job(config: DictConfig) -> float | None:
    """Train one job; called by Hydra. Returns its best accuracy, on the test set unless ``objective`` says otherwise.

    A ConfigError ends the process of a single run, and is raised in a sweep.
    """
    single = HydraConfig.get().mode == RunMode.RUN
    try:
        return train(config, single)
    except ConfigError as error:
        if single:  # Hydra would print more than one line of an exception
            sys.exit(f"error: {error}")
        raise


def train(config: DictConfig, single: bool) -> float | None:
    """Train the job of a composed config.

    Args:
        single: the job is the whole command, not one of a sweep. Its result is printed, and its failure ends the
            process with one line.

    Returns as ``job`` does. Raises ConfigError, and in a sweep the exception that the job failed with.
    """
    asked = Job(_from_here(parse(config)), Path(HydraConfig.get().runtime.output_dir))
    assert asked.directory is not None
    check_writable(asked.directory)
    ended = finished_jobs([asked]).get(0)
    if ended is None:
        from fractal_ifs.sweeps.sweep import train_unfinished

        [ended] = train_unfinished([asked], "inline", stack=0)
    if isinstance(ended, Exception):
        if single:
            sys.exit(f"error: {message(ended)}")
        raise ended
    if single:
        if ended.status != Status.DIVERGED or ended.best_step:
            print(f"best test accuracy {ended.best_test_acc:.4f} at step {ended.best_step:,} ({ended.status})")
        print(asked.directory)
        if ended.status == Status.DIVERGED:
            sys.exit(f"error: {asked.directory}: the run diverged; try a smaller lr")
    else:
        check_objective(asked, ended)
    return best_of(asked, ended)


def _from_here(config: RunConfig) -> RunConfig:
    """The config with paths that are meant from where the command began, where a job works in its own directory."""
    if not HydraConfig.get().job.chdir:
        return config

    def here(path: str) -> str:
        return to_absolute_path(os.path.expanduser(path)) if path else path

    data = config.data
    if isinstance(data, ImageData) and data.dir is not None:
        data = dataclasses.replace(data, dir=here(data.dir))
    return dataclasses.replace(config, data=data, kept=here(config.kept), continue_from=here(config.continue_from))


def main() -> int:
    """The command line. Returns 0 where jobs are trained and in tables, whatever becomes of what it prints."""
    if answered(sys.argv[1:], screen):
        return 0
    options, words = options_and_words(sys.argv[1:])
    sys.argv[1:] = options + words
    register(words)
    run = hydra.main(config_path=str(CONF), config_name="config", **VERSION_BASE)(JobFunction(job, words))
    with signals.ending() as caught:
        try:
            with told(), _shown(), refusals():
                check_plugin_keys(sys.argv[1:], "fused", "checked")
                check_trust("config", sys.argv[1:])
                maximize_accuracy()
                run()
        except BaseException as error:  # a signal in the middle of anything may end in an error of any kind
            if not (caught or isinstance(error, KeyboardInterrupt)):
                raise
            logging.getLogger("torch").setLevel(logging.WARNING)  # it would tell of its caches at the end
            said = "the same command goes on from here"
            if any(word.lstrip("+").lower() == "overwrite=true" for word in words):
                said = "the same command without overwrite=true goes on from here, and leaves finished runs as they are"
            print(f"interrupted: {said}", file=sys.stderr)
            sys.exit(128 + (caught or [signal.SIGINT])[0])
    return 0


@contextlib.contextmanager
def _shown() -> Generator[None]:
    """Within: jobs are trained. However that ends, the tables of their sweeps are shown, and the jobs that failed.

    Ends the process, with status 1, where a table can't be written, and where all runs of a sweep diverged.
    """
    wrong: list[str] = []
    begin_command()
    try:
        yield
    except JobsFailed as error:
        if was_said(error.__cause__):
            sys.exit(f"error: {counted(len(failed), 'job')} failed")
        if isinstance(error.__cause__, OSError) and not failed:  # of a file of the sweep's
            sys.exit(f"error: {of_system(error.__cause__)}")
        sys.exit(f"error: jobs failed, the first with {error}")
    finally:
        if swept:
            from fractal_ifs.sweeps.table import show_table

            wrong = [said for directory in swept if (said := show_table(directory))]
        show_failed()
    if wrong:
        sys.exit(f"error: {wrong[0]}")


if __name__ == "__main__":
    from fractal_ifs import train as door  # so that ``JobFunction`` has a module that other processes can import

    streams.command(door.main)

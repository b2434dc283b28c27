"""``python -m fractal_ifs.train [-m] KEY=VALUE ...``: train one network, or with ``-m`` a sweep of them."""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fractal_ifs.config import schema as configs
from fractal_ifs.errors import ConfigError
from fractal_ifs.runs.records import message
from fractal_ifs.sweeps.sweep import JobsFailed, show_failed, show_table, swept, train_jobs
from fractal_ifs.training import signals


@hydra.main(config_path=str(configs.CONF), config_name="config", version_base="1.3")
def run(config: DictConfig) -> float:
    """One job: returns the best test accuracy."""
    single = HydraConfig.get().mode == RunMode.RUN
    try:
        return train(config, single)
    except ConfigError as error:
        if single:  # as an exception, Hydra would print more than the one line
            sys.exit(f"error: {error}")
        raise


def train(config: DictConfig, single: bool) -> float:
    configs.check(config)
    directory = Path(HydraConfig.get().runtime.output_dir)
    configs.check_writable(directory)
    [record] = train_jobs([configs.Job(OmegaConf.to_container(config, resolve=True), directory)])  # type: ignore[arg-type]
    if isinstance(record, Exception):
        if single:
            sys.exit(f"error: {message(record)}")
        raise record
    if single:
        print(f"best test accuracy {record['best_test_acc']:.4f} at step {record['best_step']:,} ({record['status']})")
        print(directory)
    return record["best_test_acc"]


def main() -> None:
    """The command line."""
    configs.register(sys.argv[1:])
    try:
        with signals.ending(), configs.refusals("interrupted: the same command goes on from here"):
            run()
    except JobsFailed as error:
        sys.exit(f"error: jobs failed, the first with {error}")
    finally:
        for directory in swept:
            show_table(directory)
        show_failed()


if __name__ == "__main__":
    main()

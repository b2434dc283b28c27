"""What ``python -m fractal_ifs.theory`` refuses before Hydra makes a run's directory."""

from __future__ import annotations

import sys
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fractal_ifs.config.compose import resolved
from fractal_ifs.config.messages import one_line
from fractal_ifs.errors import ConfigError
from fractal_ifs.theorems.statements import problems


class Refuse(Callback):
    """Ends the process with one line where a single run's config is bad. In a sweep, only the bad jobs are refused."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check the config that Hydra has composed."""
        HydraConfig.instance().set_config(config)  # for ${hydra:...}
        try:
            problems(resolved(config), config.hydra.overrides.task)
        except ConfigError as error:
            sys.exit(f"error: {error}")
        except OmegaConfBaseException as error:
            words: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
            sys.exit(f"error: {one_line(error, words)}")

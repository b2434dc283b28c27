"""``trainer.strategy=fsdp``: each process of ``runs.ddp`` holds a share of a network's weights and of its moments.

The run's vectors are whole in every process, and get their numbers where the run is measured or kept. FSDP is Torch's
``FullyShardedDataParallel``; Zhao et al., "PyTorch FSDP", VLDB 2023.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer

from fractal_ifs.runs.run import Run
from fractal_ifs.runs.vectors import views

WHOLE = StateDictOptions(full_state_dict=True)


class Sharded(FSDPStrategy):
    """Lightning's strategy, which here goes on from a run's vectors instead of from a file, also on CPUs."""

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole network, in each process. Lightning's own crashes on CPUs."""
        assert self.lightning_module is not None
        return get_model_state_dict(self.lightning_module, options=WHOLE)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state of the optimizer, in the form of torch's optimizers: by the numbers of the parameters."""
        assert self.lightning_module is not None
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        whole: Any = get_optimizer_state_dict(self.lightning_module, optimizer, options=WHOLE)
        groups = whole["param_groups"]
        numbers = {name: n for n, name in enumerate(name for group in groups for name in group["params"])}
        return {
            "state": {numbers[name]: state for name, state in whole["state"].items()},
            "param_groups": [group | {"params": [numbers[name] for name in group["params"]]} for group in groups],
        }

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """What a run's ``KeptIO`` has."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path)


def sharded(network: nn.Module, device: torch.device) -> nn.Module:
    """A copy of a network, of which this process holds its share."""
    return FullyShardedDataParallel(copy.deepcopy(network), device_id=device, use_orig_params=True)


def gather(run: Run, network: nn.Module, optimizer: Optimizer | None = None) -> None:
    """Copy the weights of a ``sharded`` network to the run, and the moments of its optimizer, if one is given."""
    run.model.load_state_dict(get_model_state_dict(network, options=WHOLE))
    if optimizer is not None:
        state: Any = get_optimizer_state_dict(network, optimizer, options=WHOLE)["state"]
        for name, vectors in _by_parameter(run).items():
            for key, vector in vectors.items():
                if key in state.get(name, {}):
                    vector.copy_(state[name][key])


def scatter(run: Run, network: nn.Module, optimizer: Optimizer) -> None:
    """Give the optimizer of a ``sharded`` network the run's moments, as of the run's step."""
    whole: Any = get_optimizer_state_dict(network, optimizer, options=WHOLE)
    for name, vectors in _by_parameter(run).items():
        there = whole["state"].get(name, {})
        if "step" in there:
            there["step"].fill_(run.step)
        there |= {key: vector for key, vector in vectors.items() if key in there}
    set_optimizer_state_dict(network, optimizer, whole, options=WHOLE)


def _by_parameter(run: Run) -> dict[str, dict[str, Tensor]]:
    """Parts of the run's vectors, by the parameter and by what torch's optimizers call them."""
    names, parameters = zip(*run.model.named_parameters(), strict=True)
    parts = zip(names, views(run.exp_avg, parameters), views(run.exp_avg_sq, parameters), strict=True)
    return {name: {"exp_avg": first, "exp_avg_sq": second, "momentum_buffer": first} for name, first, second in parts}

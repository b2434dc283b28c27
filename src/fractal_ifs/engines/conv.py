"""The engine for convolutional networks: one run at a time, with autograd, on any device.

Convolutions of several networks at once are no faster than one network after the other. What can be faster on a GPU is
several processes, as a sweep has them: one core launches kernels more slowly than the GPU computes small ones.
"""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the types of compile, Tensor.backward and Optimizer.step)

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fractal_ifs.config.data import ImageData
from fractal_ifs.config.optimizer import Adam
from fractal_ifs.data.images import Batches
from fractal_ifs.data.labelled import Labelled
from fractal_ifs.engines.arithmetic import AUTOCAST, casting
from fractal_ifs.engines.optimizers import torch_optimizer
from fractal_ifs.engines.protocol import Engine, Measurement, Signals
from fractal_ifs.engines.steps import learning_rates, shares
from fractal_ifs.runs import ddp
from fractal_ifs.runs.run import Run
from fractal_ifs.runs.vectors import views
from fractal_ifs.runs.versions import ComputedBy

CHUNK = 100  # largest number of steps at a time, so that checkpoints can be written between evaluations


class ConvEngine(Engine):
    """Trains one network at a time, with PyTorch's optimizer on the run's flat vectors.

    Args:
        precision: as for ``pytorch_lightning.Trainer``.
        channels_last: store maps with channels innermost in memory.
        compiled: compile the network with ``torch.compile``, which may add numbers in another order.
    """

    computed_by = ComputedBy(engine="conv")

    def __init__(self, precision: str = "32-true", channels_last: bool = True, compiled: bool = False):
        self.precision, self.channels_last, self.compiled = precision, channels_last, compiled
        self._holds: _Held | None = None

    def _held(self, run: Run) -> "_Held":
        if self._holds is None or self._holds.run is not run:
            self._holds = _Held(run, self.precision, self.channels_last, self.compiled)
        return self._holds

    def advance(self, runs: Sequence[Run], steps: Sequence[int], stop: Signals) -> list[float]:
        """Advance the only run by at most ``CHUNK`` steps, as ``Engine`` says."""
        [run], [asked] = runs, steps
        return [self._held(run).advance(min(asked, CHUNK - run.step % CHUNK), stop)]

    def evaluate(self, runs: Sequence[Run], sets: Sequence[Labelled]) -> list[Measurement]:
        """The share of images whose largest logit is their label's, and the mean cross-entropy."""
        return [self._held(run).evaluate(there) for run, there in zip(runs, sets, strict=True)]


class _Held:
    """A run with its batches, its optimizer, and its gradient as one vector (P,)."""

    def __init__(self, run: Run, precision: str, channels_last: bool, compiled: bool):
        self.run = run
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.precision = precision
        self.network = torch.compile(run.model) if compiled else run.model
        assert isinstance(run.config.data, ImageData)
        self.batches = Batches(run.data, run.config.data, run.config.seed, run.config.batch_size, run.params.dtype)
        self.flat = flat = nn.Parameter(run.params)
        self.grad = flat.grad = torch.zeros_like(run.params)
        for p, grad in zip(run.model.parameters(), views(self.grad, run.model.parameters()), strict=True):
            p.grad = grad
        self.optimizer = torch_optimizer(run.config, [flat], fused=True)
        if isinstance(run.config.optimizer, Adam):
            done = torch.tensor(float(run.step), device=flat.device)
            self.optimizer.state[flat] = {"step": done, "exp_avg": run.exp_avg, "exp_avg_sq": run.exp_avg_sq}
        else:
            self.optimizer.state[flat] = {"momentum_buffer": run.exp_avg}  # of no use without momentum

    def logits(self, x: Tensor) -> Tensor:
        with casting(self.precision, x.device), _deterministic():
            f = self.network(x.contiguous(memory_format=self.format))
        return f.float() if self.precision in AUTOCAST else f

    def advance(self, steps: int, stop: Signals) -> float:
        """Do ``steps`` steps, or fewer if ``stop`` says so. Returns ``run.loss_sum`` plus the batch losses."""
        total = torch.tensor(self.run.loss_sum, dtype=torch.float64, device=self.grad.device)
        config, first = self.run.config, self.run.step
        rates, parts = learning_rates(config, first, steps), shares(config.optimizer, first, steps)
        for x, y in self.batches(first, steps):
            loss = F.cross_entropy(self.logits(ddp.share(x)), ddp.share(y))
            self.grad.zero_()
            with _deterministic():
                loss.backward()
            with torch.no_grad():
                ddp.average(loss, self.grad)
            if config.optimizer.clip is not None:
                nn.utils.clip_grad_norm_(self.flat, config.optimizer.clip)
            done = self.run.step - first
            if rates is not None:
                self.optimizer.param_groups[0]["lr"] = float(rates[done])
            self.optimizer.step()
            if parts is not None and self.run.average is not None:
                part = float(parts[done])
                self.run.average.mul_(1 - part).add_(self.run.params, alpha=part)
            total += loss.detach()
            self.run.step += 1
            if stop:
                break
        return total.item()

    @torch.no_grad()
    def evaluate(self, there: Labelled) -> Measurement:
        right, loss = 0, 0.0
        with self.run.averaged():
            for x, y in self.batches.of(*there):
                f = self.logits(x)
                right += ((f.argmax(1) == y) & ~f.isnan().any(1)).sum().item()  # nan is wrong, whatever the label
                loss += F.cross_entropy(f, y, reduction="sum").item()
        n = len(there.y)
        return Measurement(right / n, loss / n)


def _deterministic() -> contextlib.AbstractContextManager[None]:
    """Within: cuDNN uses reproducible algorithms, in TF32 where that is on. Has no effect on a CPU."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=cudnn.allow_tf32)

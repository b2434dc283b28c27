"""The config group ``trainer``: the hardware and the arithmetic that a run trains with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fractal_ifs.config.keys import Group, key, shown
from fractal_ifs.config.lightning import CKPT_PATH, flags_of_result, parse_flags
from fractal_ifs.config.written import NOTHING, Written
from fractal_ifs.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Trainer(Group):
    """The keys of conf/trainer/*.yaml. Those that ``pytorch_lightning.Trainer`` has too mean the same as there."""

    PREFIX: ClassVar[str] = "trainer."

    accelerator: Literal["cpu", "gpu", "auto"] = key(
        "kind of device; auto: a GPU if there is one", absent="cpu", result=False
    )
    devices: int = key(
        "devices that share a run's batches; more than one with trainer=ddp only", least=1, most=1024, later=1
    )
    strategy: Literal["auto", "ddp", "fsdp"] = key(
        "how several devices train one run; fsdp, with engine=lightning: each holds a share of its weights",
        result=False,
    )
    precision: Literal["32-true", "bf16-mixed", "64-true"] = key("precision of numbers", absent="32-true")
    draw: Literal["float32", "precision"] = key(
        "initial weights are drawn in float32 and then cast; precision: as 64-true drew others before",
        later="precision",
    )
    compile: bool = key("compile the step with torch.compile, which may add numbers in another order", later=False)
    cuda_graphs: bool | None = key(
        "torch engine on a GPU: do steps as CUDA graphs; null: where that can be",
        later=False,
        result=False,
        allowed="true, false or null",
    )
    tf32: bool = key("products and convolutions on a GPU in TensorFloat-32, 10 bits of mantissa", later=False)
    channels_last: bool = key("store a CNN's maps with channels innermost in memory", later=True)
    threads: int = key("threads of a process that trains a CNN on a CPU", least=1, most=1024, later=1)

    flags: Written = NOTHING  # of ``pytorch_lightning.Trainer`` besides, which only engine=lightning has

    @classmethod
    def parse(cls, keys: Mapping[str, Any]) -> Trainer:
        """The group from its keys. Those that are none of the above are flags. Raises ConfigError."""
        own = tuple(field.name for field in dataclasses.fields(cls) if field.metadata)
        flags = parse_flags({name: value for name, value in keys.items() if name not in own}, own)
        group = super().parse({name: value for name, value in keys.items() if name in own})
        return dataclasses.replace(group, flags=flags)

    def plain(self) -> dict[str, Any]:
        """The keys and values as a record stores them, the flags among them."""
        plain = super().plain()
        del plain["flags"]
        return plain | self.flags.plain()

    def check(self) -> None:
        """Raises ConfigError if keys contradict each other."""
        if self.strategy == "auto" and self.devices != 1:
            raise ConfigError(
                f"trainer.devices={self.devices}: must be 1 unless trainer=ddp; a sweep uses all GPUs anyway"
            )
        if self.strategy == "fsdp":
            self._check_fsdp()
        if self.cuda_graphs and self.devices > 1:
            raise ConfigError(f"trainer.cuda_graphs=true: must be false with trainer.devices={self.devices}")
        if self.cuda_graphs and self.accelerator == "cpu":
            raise ConfigError("trainer.cuda_graphs=true: needs a GPU, trainer=gpu")
        if self.tf32 and self.precision != "32-true":
            raise ConfigError(f"trainer.tf32=true: must be false with trainer.precision={self.precision}")
        if self.tf32 and self.accelerator == "cpu":
            raise ConfigError("trainer.tf32=true: needs a GPU, trainer=gpu")

    def _check_fsdp(self) -> None:
        """Raises ConfigError for what goes with no shares of weights."""
        if self.devices == 1:
            raise ConfigError("trainer.devices=1: must be at least 2 with trainer.strategy=fsdp")
        if self.precision != "32-true":
            raise ConfigError(f"trainer.precision={self.precision}: must be 32-true with trainer.strategy=fsdp")
        clip = self.flags.keys.get("gradient_clip_val")
        if clip is not None and self.flags.keys.get("gradient_clip_algorithm") != "value":
            raise ConfigError(
                f"trainer.gradient_clip_val={shown(clip)}: needs trainer.gradient_clip_algorithm=value with "
                "trainer.strategy=fsdp, where no process knows the whole gradient's norm"
            )

    @property
    def batches_per_step(self) -> int:
        """Whose gradients an optimizer step adds up, which only engine=lightning can have more than one of."""
        return self.flags.keys.get("accumulate_grad_batches", 1)

    @property
    def ckpt_path(self) -> str | None:
        """The checkpoint of Lightning's that a run begins from, ``training.ckpt_path``."""
        return self.flags.keys.get(CKPT_PATH)

    def of_network(self, cnn: bool, drawn: bool) -> dict[str, str]:
        """The trainer's part of a fingerprint, as text: the precision, and keys that change the order of sums.

        ``channels_last`` and ``threads`` change it only for a CNN. ``draw`` changes weights only in double precision,
        and of networks that are ``drawn``, as that of Theorem 1 isn't.
        """
        double = self.precision == "64-true" and drawn
        found = {
            name: value
            for name, value in self.identity().items()
            if name != "flags" and (cnn or name not in ("channels_last", "threads")) and (double or name != "draw")
        }
        texts = {name: "true" if value is True else str(value) for name, value in found.items()}
        if self.strategy == "fsdp":  # it adds gradients in another order
            texts["strategy"] = "fsdp"
        return texts | flags_of_result(self.flags)

"""The paper's grid as one writes it with Hydra and Lightning alone: what ``steps.py`` compares with.

    python benchmarks/plain.py -m fractal=vicsek curve=1,4 width=20 steps=1000 hydra/launcher=joblib

A job per network: a LightningModule, a DataLoader over a TensorDataset, a CSVLogger with a log call per step, the test
set as validation every 10,000 steps, Hydra's own launchers. One thread per process, which at these widths is its best.
"""

import dataclasses
import logging
import warnings
from pathlib import Path

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from fractal_ifs.fractals.distribution import FractalDistribution
from fractal_ifs.networks.mlp import MLP


class Plain(pl.LightningModule):
    def __init__(self, width: int):
        super().__init__()
        self.model = MLP(2, width, 5)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        x, y = batch
        loss = (1 - y * self.model(x)).relu().mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        x, y = batch
        self.log("test_acc", (y * self.model(x) > 0).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=5e-4)


@dataclasses.dataclass
class Config:
    fractal: str = "cantor2d"
    curve: int = 1
    width: int = 20
    steps: int = 1_000_000


def tensors(law: FractalDistribution, n: int, seed: int) -> TensorDataset:
    x, y, _ = law.sample(n, seed=seed)
    return TensorDataset(torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.float32))


@hydra.main(config_path=str(Path(__file__).parent), config_name="plain", version_base="1.3")
def main(config: Config) -> None:
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    law = FractalDistribution(config.fractal, curve=config.curve, depth=5)
    trainer = pl.Trainer(
        max_steps=config.steps,
        accelerator="cpu",
        logger=CSVLogger(HydraConfig.get().runtime.output_dir),
        log_every_n_steps=1,
        val_check_interval=10_000,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    training, test = tensors(law, 50_000, seed=0), tensors(law, 5_000, seed=1)
    trainer.fit(Plain(config.width), DataLoader(training, 100, shuffle=True), DataLoader(test, 1000))


ConfigStore.instance().store(name="plain", node=Config)

if __name__ == "__main__":
    main()

"""The help of ``fractal-ifs train``: everything that the command takes, from the typed keys and conf/."""

from __future__ import annotations

from collections.abc import Sequence

from fractal_ifs.config.data import FractalData, ImageData
from fractal_ifs.config.keys import describe
from fractal_ifs.config.logger import WandbLogger
from fractal_ifs.config.model import CNNModel, MLPModel, ResMLPModel, Theorem1Model, TransformerModel
from fractal_ifs.config.optimizer import Adam, Sgd
from fractal_ifs.config.run import RunConfig
from fractal_ifs.config.schedule import Decay, Inverse, Step
from fractal_ifs.config.stop import Stop
from fractal_ifs.config.trainer import Trainer
from fractal_ifs.files import CONF
from fractal_ifs.help.layout import Examples, program
from fractal_ifs.help.takes import Key, Keys, Takes, choices, content, overridden, shapes, typed, written
from fractal_ifs.sweeps.grid import Grid
from fractal_ifs.sweeps.outward import Outward
from fractal_ifs.sweeps.packing import Packing
from fractal_ifs.sweeps.rungs import Halving
from fractal_ifs.sweeps.slurm_settings import SlurmSettings

EXAMPLES: Examples = (
    ("fractal=vicsek curve=4 width=20 budget=quick", "one network: 20,000 steps instead of the paper's 10^6"),
    (
        "-m fractal=vicsek curve=1,4,6 steps=20000",
        "a sweep of three; the same command again trains only what is not finished",
    ),
    ("-m curve='range(1,7)' width=10,20 sweep=mine", "a sweep of twelve, in multirun/mine"),
    ("-m experiment=table2 curve=1 width=10 budget=quick", "twelve networks of the paper's Table 2"),
    ("-m data=cifar10 model=cnn depth=1,2,3 width=8", "CNNs on CIFAR-10"),
    ("fractal=carpet depth=3 --cfg job", "shows this config, and trains nothing"),
)


def takes() -> Takes:
    """The groups, keys and options of the command."""
    results = {key.name: key.result for key in describe(RunConfig)}
    own = typed(RunConfig, CONF / "config.yaml")
    data, model, trainer, hydra = CONF / "data", CONF / "model", CONF / "trainer", CONF / "hydra"
    optimizer, schedule = CONF / "optimizer", CONF / "schedule"
    keys = [
        Keys("keys of what is trained, which belong to a run's result", [key for key in own if results[key.name]]),
        Keys("keys of where and how, which change no result", [key for key in own if not results[key.name]]),
        *shapes(),
        Keys("keys of data=fractal", typed(FractalData, data / "fractal.yaml")),
        Keys(
            "keys of data=cifar10 and data=fashion_mnist",
            typed(ImageData, data / "cifar10.yaml", data / "fashion_mnist.yaml"),
        ),
        Keys("keys of model=mlp", typed(MLPModel, model / "mlp.yaml")),
        Keys("keys of model=resmlp", typed(ResMLPModel, model / "resmlp.yaml")),
        Keys("keys of model=transformer", typed(TransformerModel, model / "transformer.yaml")),
        Keys("keys of model=theorem1", typed(Theorem1Model, model / "theorem1.yaml")),
        Keys("keys of model=cnn", typed(CNNModel, model / "cnn.yaml")),
        Keys(
            "keys of optimizer=adam and optimizer=adamw",
            typed(Adam, optimizer / "adam.yaml", optimizer / "adamw.yaml"),
        ),
        Keys("keys of optimizer=sgd", typed(Sgd, optimizer / "sgd.yaml")),
        Keys("keys of schedule=linear and schedule=cosine", typed(Decay, schedule / "linear.yaml")),
        Keys("keys of schedule=step", typed(Step, schedule / "step.yaml")),
        Keys("keys of schedule=inverse", typed(Inverse, schedule / "inverse.yaml")),
        Keys("keys of what ends a run early", typed(Stop, CONF / "stop" / "never.yaml")),
        Keys("keys of a trainer", typed(Trainer, trainer / "cpu.yaml", trainer / "gpu.yaml", trainer / "ddp.yaml")),
        Keys("keys of logger=wandb", typed(WandbLogger, CONF / "logger" / "wandb.yaml")),
        Keys(
            "keys of a sweep on this machine, hydra/launcher=fused", typed(Packing, hydra / "launcher" / "fused.yaml")
        ),
        Keys("keys of a sweep in Slurm, hydra/launcher=slurm", typed(SlurmSettings, hydra / "launcher" / "slurm.yaml")),
        Keys("keys of a sweep, hydra/sweeper=checked", typed(Grid, hydra / "sweeper" / "checked.yaml")),
        Keys("keys of a sweep that prunes, hydra/sweeper=halving", typed(Halving, hydra / "sweeper" / "halving.yaml")),
        Keys(
            "keys of a sweep that searches, hydra/sweeper=outward", typed(Outward, hydra / "sweeper" / "outward.yaml")
        ),
        Keys("keys of Hydra's", directories()),
    ]
    return Takes(choices(CONF / "config.yaml", CONF / "launching.yaml"), keys, besides=besides())


def directories() -> list[Key]:
    """Keys of Hydra's own that users of this command need."""
    return [
        Key(
            "hydra.run.dir",
            "DIR",
            "the directory of a single run; by default below outputs/, named after its overrides",
        ),
        Key("hydra.sweep.dir", "DIR", "the directory of a sweep; by default multirun/ and what the key sweep says"),
        Key("hydra.searchpath", "[DIR]", "take choices of groups from DIR/GROUP/*.yaml too, as --config-dir does"),
    ]


def besides() -> list[tuple[str, str]]:
    """What choices set that are not the keys of their own group: ``budget=quick sets``, ``steps=20000 ...``."""
    return [
        (f"{group}={path.stem}", " ".join(f"{name}={written(value)}" for name, value in sets.items()))
        for group, folder in (("budget", "budget"), ("data", "protocol"))
        for path in sorted((CONF / folder).glob("*.yaml"))
        if (sets := overridden(CONF / group / path.name) | content(path))
    ]


def screen(arguments: Sequence[str] = ()) -> str:
    """The help, or where keys or groups are named among the arguments, the help on these. Raises ConfigError."""
    text = """
        Train one network, or with -m a sweep of many. What is not given is the paper's protocol. A run leaves its
        directory in outputs/, a sweep in multirun/. If interrupted, it goes on where the same command is given again.
        """
    return takes().screen(program("train"), "[-m] [KEY=VALUE ...]", text, EXAMPLES, arguments)

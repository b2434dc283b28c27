"""Any network: a class of a user's own through the command line, its refusals, and ours beside the paper's."""

import dataclasses
import itertools
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import changed, edited, read_checkpoint, small
from test_training import plain_loop, relative, same, trained

from fractal_ifs import ConfigError, load, run
from fractal_ifs.config.compose import compose
from fractal_ifs.config.model import OwnModel, parse_model
from fractal_ifs.config.own_class import check_named, resolve
from fractal_ifs.engines import fusing
from fractal_ifs.engines.choice import choose
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.networks.own import check
from fractal_ifs.networks.transformer import Transformer, zooms
from fractal_ifs.networks.varied import ACTIVATIONS, ResMLP, VariedMLP
from fractal_ifs.results.protocol import setting_of
from fractal_ifs.runs.run import Run

SIREN = """
import torch
from torch import nn

class Siren(nn.Module):
    def __init__(self, d, width, depth, *, generator, omega=10.0):
        super().__init__()
        self.omega = omega
        self.layers = nn.ModuleList(nn.Linear(n, width) for n in [d] + [width] * (depth - 1))
        self.readout = nn.Linear(width, 1)
        for number, layer in enumerate([*self.layers, self.readout]):
            bound = 1 / layer.in_features if number == 0 else (6 / layer.in_features) ** 0.5 / omega
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        for layer in self.layers:
            x = torch.sin(self.omega * layer(x))
        return self.readout(x).squeeze(-1)
"""
TINY = ["width=6", "depth=2", "steps=20", "eval_every=10", "data.train_size=200", "data.test_size=50", "logger=none"]
INLINE = "hydra.launcher.executor=inline"
NUMBERS = itertools.count()


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """``nets(SOURCE)``: the name of a new module in the directory mine, which is on Python's path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    made = []

    def write(source: str, yaml: str = "omega: 10\n", target: str = "Siren") -> str:
        made.append(name := f"nets{next(NUMBERS)}")
        (tmp_path / "mine" / "model").mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / f"{name}.py").write_text(source)
        (tmp_path / "mine" / "model" / "siren.yaml").write_text(f"_target_: {name}.{target}\n{yaml}")
        return name

    yield write
    for name in made:
        sys.modules.pop(name, None)


def own(name: str, **keys) -> OwnModel:
    model = parse_model({"_target_": f"{name}.Siren", **keys})
    assert isinstance(model, OwnModel)
    return model


def of_own(name: str, seed: int = 0, **keys):
    """The config of a small run of a user's own network."""
    return dataclasses.replace(small(seed=seed, fractal="vicsek", **keys), model=own(name))


def test_a_network_of_ones_own_through_the_command_line(command, nets, tmp_path, caplog):
    nets(SIREN)
    words = ["model=siren", "fractal=vicsek", "hydra.searchpath=[mine]", *TINY[:-1], "logger=csv"]
    ended = command("-m", *words, "curve=1,4", "model.omega=5,10", INLINE, "sweep=own")
    assert ended.status == 0
    assert "model.omega" in ended.out
    jobs = sorted((tmp_path / "multirun" / "own").rglob("result.json"))
    assert len(jobs) == 4
    record, history, config, model = load(jobs[0].parent)
    assert (record["model"], record["init"], record["engine"], record["params"]) == ("Siren", None, "torch", 67)
    assert isinstance(config.model, OwnModel)
    assert config.model.plain() == {"name": "Siren", "_target_": config.model.target, "omega": 10}
    assert re.fullmatch("[0-9a-f]{12}", record["model_source"])
    assert len(history) == 2
    assert model(torch.zeros(3, 2)).shape == (3,)
    assert "4 of 4 jobs are finished" in command("-m", *words, "curve=1,4", "model.omega=5,10", INLINE, "sweep=own").out
    module = Path(str(sys.modules[config.model.target.partition(".")[0]].__file__))
    edited(module, module.read_text() + "# changed\n")
    again = command("-m", *words, "curve=1,4", "model.omega=5,10", INLINE, "sweep=own")
    assert "4 of these were trained with another source of their model" in again.out + again.err
    assert "sources: " not in again.out
    load(jobs[0].parent)
    assert re.search(r"another source of its model \(model_source \w{12} there, \w{12} here\)", caplog.text)
    more = command("-m", *words, "curve=1,4", "model.omega=5", "seed=0,1", INLINE, "sweep=own")
    assert "sources: in 2 cells the mean is over runs of different sources of their model or loss" in more.out
    single = command(*words, "seed=3")
    assert single.status == 0
    assert "best test accuracy" in single.out
    assert (run(model="siren", fractal="vicsek", hydra__searchpath=["mine"], **dict(w.split("=") for w in TINY)))[1]


def test_a_run_equals_a_plain_loop(nets):
    name = nets(SIREN)
    for config in (
        of_own(name, eval_every=100),
        small(eval_every=100, model__activation="gelu", model__norm="layer", model__skip="residual"),
        small(eval_every=100, model="resmlp", model__activation="tanh", model__expansion=2),
        small(eval_every=100, model="transformer", width=6, lr=1e-4),
    ):
        [found] = trained([config])
        params, loss = plain_loop(config, 100)
        assert relative(found.params, params) <= 1e-4
        assert found.history[-1].train_loss == pytest.approx(loss, rel=1e-4)
        assert relative(found.params, Run(config, None).params) > 1e-2


CONFIGS = {
    "sine": {"model__activation": "sine"},
    "all": {"model__activation": "gelu", "model__norm": "layer", "model__skip": "residual", "width": 7},
    "sum": {"model__activation": "leaky", "model__skip": "sum", "trainer__precision": "64-true"},
    "resmlp": {"model": "resmlp", "width": 5},
    "transformer": {"model": "transformer", "width": 5},
}


@pytest.mark.parametrize("kind", ["own", *CONFIGS])
def test_company_changes_no_bit(nets, kind):
    name = nets(SIREN)
    configs = [
        of_own(name, seed, steps=40, eval_every=20)
        if kind == "own"
        else small(steps=40, eval_every=20, seed=seed, **CONFIGS[kind])
        for seed in range(4)
    ]
    configs = [changed(config, "lr", lr) for config, lr in zip(configs, (1e-3, 5e-3, 2e-2, 1e-3), strict=True)]
    assert all(choose(config).engine == "torch" for config in configs)
    together = trained(configs, stack=3)
    assert fusing.why_not(together[0]) is None
    for config, found in zip(configs, together, strict=True):
        same(found, trained([config])[0])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_all_of_ours_are_fused(activation):
    for width, keys in itertools.product(
        (7, 20), ({"model__norm": "layer"}, {"model": "resmlp"}, {"model": "transformer"})
    ):
        assert fusing.why_not(Run(small(width=width, model__activation=activation, **keys), None)) is None


def killed(configs, directories: list[Path], rounds: int) -> list[Path]:
    """Copies of the runs' directories as a kill after some rounds would leave them."""
    copies = [directory.with_suffix(".killed") for directory in directories]
    left = itertools.count(rounds, -1)

    def copy(_) -> None:
        if next(left) == 0:
            for directory, there in zip(directories, copies, strict=True):
                shutil.copytree(directory, there)

    trained(configs, 3, directories, copy)
    return copies


BATCHNORM = SIREN.replace("self.readout =", "self.norm = nn.BatchNorm1d(width)\n        self.readout =").replace(
    "return self.readout(x)", "return self.readout(self.norm(x))"
)
FEATURES = SIREN.replace(
    "self.readout =", "self.register_buffer('scale', torch.rand(d, generator=generator) + 1)\n        self.readout ="
).replace("for layer in self.layers:", "x = x * self.scale\n        for layer in self.layers:")


@pytest.mark.parametrize("source", [SIREN, FEATURES, BATCHNORM], ids=["siren", "buffers", "statistics"])
def test_killed_and_resumed_to_equal_bits(nets, tmp_path, monkeypatch, source):
    name = nets(source)
    monkeypatch.setattr("fractal_ifs.training.rounds.CHECKPOINT_SECONDS", 0)
    configs = [of_own(name, seed, steps=60, eval_every=20) for seed in range(3)]
    alone = [trained([config])[0] for config in configs]
    copies = killed(configs, [tmp_path / str(seed) for seed in range(3)], 1)
    assert all(0 < read_checkpoint(copy)["step"] < 60 for copy in copies)
    resumed = trained(configs, 2, copies)
    for found, expected, copy in zip(resumed, alone, copies, strict=True):
        same(found, expected)
        model = load(copy).model
        x = found.data.x_test
        assert torch.equal(model(x), found.model.eval()(x))  # with what isn't trained


@pytest.mark.parametrize("key", ["optimizer.average=ema", "trainer.devices=2"])
def test_what_changes_its_buffers_has_no_average_and_one_device(nets, command, key):
    """The average of weights needs statistics of its own, and devices would each have others."""
    nets(BATCHNORM)
    words = ["model=siren", "hydra.searchpath=[mine]", *TINY, *(["trainer=ddp"] if "devices" in key else [])]
    told = str(command(*words, key, "trainer.accelerator=cpu").status)
    assert re.fullmatch(rf"error: {key}: must be \w+ with model._target_=nets\d+.Siren, which changes .*", told)


ONE_BY_ONE = {
    "statistics": (BATCHNORM, "changes its buffers"),
    "control flow": (
        SIREN.replace("return self", "x = -x if x.sum() > 1e9 else x\n        return self"),
        "data-dependent",
    ),
    "bits": (SIREN.replace("torch.sin", "nn.functional.silu"), "other bits in company"),
    "an attribute": (
        SIREN.replace("self.omega = omega", "self.omega = omega + torch.rand((), generator=generator).item()"),
        "isn't a function of its parameters",
    ),
}


@pytest.mark.parametrize("kind", ONE_BY_ONE)
def test_what_cant_be_fused_is_told_and_trained_one_by_one(nets, caplog, kind):
    caplog.set_level(logging.INFO)
    source, why = ONE_BY_ONE[kind]
    name = nets(source)
    configs = [of_own(name, seed, width=7, steps=20, eval_every=10) for seed in range(3)]
    together = trained(configs, stack=3)
    said = [text for text in caplog.messages if "one by one" in text]
    assert len(said) == 1
    assert why in said[0]
    assert "\n" not in said[0]
    for config, found in zip(configs, together, strict=True):
        same(found, trained([config])[0])
        assert found.history[-1].finite


REFUSED = {
    "no module": ("class Siren:\n    pass\n", "must be a class of torch.nn.modules.module.Module"),
    "a function": ("def Siren(): pass\n", "must be a class of torch.nn.modules.module.Module"),
    "another name": ("class Sirene: pass\n", "has no Siren"),
    "raises": ("class Siren: pass\nraise SystemExit(3)\n", "can't be imported (SystemExit: 3)"),
    "no Python": ("class Siren:\n", "can't be imported (IndentationError"),
    "no generator": (SIREN.replace("*, generator, ", ""), "__init__ must take generator"),
    "raises in init": (
        SIREN.replace("super().__init__()", "super().__init__()\n        1 / 0"),
        "__init__(d=2, width=6, depth=2, ...) failed (ZeroDivisionError",
    ),
    "raises in forward": (SIREN.replace("return self", "return self.none + self"), "forward failed (AttributeError: "),
    "last axis": (SIREN.replace(".squeeze(-1)", ""), "not (5, 1) for (5, 2) (squeeze(-1) removes the last axis)"),
    "one number": (SIREN.replace(".squeeze(-1)", ".sum()"), "return shape (n,) for points (n, d), not () for (5, 2)"),
    "two": (SIREN.replace(".squeeze(-1)", ", x"), "must return a tensor, not tuple"),
    "doubles": (SIREN.replace(".squeeze(-1)", ".squeeze(-1).double()"), "must return numbers of float32"),
    "double weights": (SIREN.replace("(width, 1)", "(width, 1).double()"), "parameters must be numbers of float32"),
    "global": (SIREN.replace(", generator=generator)", ")"), "depend on the global generator of torch"),
    "dropout": (
        SIREN.replace("self.readout(x)", "nn.functional.dropout(self.readout(x), 0.5, self.training)"),
        "isn't deterministic: the same weights and points",
    ),
    "a batch's mean": (
        SIREN.replace(".squeeze(-1)", ".squeeze(-1) - self.readout(x).mean()"),
        "its number for a point depends on the other points of a batch (in eval mode)",
    ),
    "a batch's statistics": (  # as batch normalisation has without running ones
        SIREN.replace("(x).squeeze(-1)", "(nn.functional.batch_norm(x, None, None, training=True)).squeeze(-1)"),
        "its number for a point depends on the other points of a batch (in eval mode)",
    ),
    "counts": (
        "COUNT = [0]\n"
        + SIREN.replace("zeros_(layer.bias)", "constant_(layer.bias, COUNT[0])\n            COUNT[0] += 1"),
        "isn't deterministic: the same generator gives other weights",
    ),
    "no gradient": (
        SIREN.replace("self.omega = omega", "self.spare = nn.Parameter(torch.zeros(2))\n        self.omega = omega"),
        "spare gets no gradient",
    ),
    "fixed": (
        SIREN.replace("    def forward", "        self.readout.requires_grad_(False)\n\n    def forward"),
        "readout.weight, readout.bias isn't trained (requires_grad=False): make it a buffer",
    ),
    "no parameters": (
        SIREN.split("self.omega =")[0] + "pass\n    def forward(self, x):\n        return x.sum(-1)\n",
        "has no parameters to train",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_class_that_breaks_the_contract_is_refused_in_one_line(nets, kind):
    source, why = REFUSED[kind]
    name = nets(source)
    with pytest.raises(ConfigError) as told:
        check(own(name), 2, 6, 2)
    assert str(told.value).startswith(f"model._target_={name}.Siren: ")
    assert why in str(told.value)
    assert "\n" not in str(told.value)


def test_refusals_come_before_anything_is_written(command, nets, tmp_path):
    name = nets(SIREN.replace(".squeeze(-1)", ""))
    for words in (["curve=1"], ["-m", "curve=1,4"], ["-m", "curve=1,4", "hydra/launcher=basic"]):
        told = str(command("model=siren", *TINY, *words, "hydra.searchpath=[mine]").status)
        assert told.startswith(f"error: model._target_={name}.Siren: forward must return shape (n,)")
        assert "\n" not in told
    with pytest.raises(ConfigError, match="forward must return shape"):
        run(model="siren", hydra__searchpath=["mine"], **dict(word.split("=") for word in TINY))
    assert not list(tmp_path.rglob("*result*"))
    assert not list(tmp_path.rglob(".hydra"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("+model.omga=3", "model.omga=3: there is no such key; did you mean model.omega?"),
        ("model.omega=fast", "failed (TypeError: "),
        ("+model.width=3", "model.width=3: can't be a key of the network: the run gives it"),
        ("+model._args_=[1]", "model._args_=[1]: must be the name of an argument"),
        ("+model.table={1: 2.0, a: 3}", 'model.table: the key 1: must be a name, as "1"'),
        ("+model.table={1: 2.0}", 'model.table: the key 1: must be a name, as "1"'),
        ("+model.tables=[{a: {1: 2, b: 3}}]", 'model.tables.0.a: the key 1: must be a name, as "1"'),
        ("+model.act={_target_:os.system}", "model.act._target_=os.system: can't stand here"),
        ("+model.acts=[{_target_:os.system}]", "model.acts.0._target_=os.system: can't stand here"),
        ("model._target_=nowhere.Siren", "model._target_=nowhere.Siren: there is no module nowhere; it must be"),
        ("model._target_=Siren", "model._target_=Siren: must be a class with its module, as nets.Siren"),
        ("model._target_=7", "must be a class with its module"),
        ("model._target_=torch.nowhere.Siren", "there is no module torch.nowhere"),
        (
            "+model.name=mlp",
            "model.name=mlp: must be letters, digits, _ and -, and none of mlp, resmlp, transformer, theorem1, cnn",
        ),
        ("+model.name=../x", "model.name=../x: must be"),
        ("training=layerwise", "training=layerwise: needs model=mlp, not Siren"),
        ("engine=native", "engine=native: must be auto or torch here (model=Siren: the native engine trains plain"),
        ("data=cifar10", "model=Siren: must be cnn with data=cifar10"),
    ],
)
def test_bad_keys_are_refused_in_one_line(command, nets, words, told):
    nets(SIREN)
    ended = command("model=siren", *TINY, "hydra.searchpath=[mine]", words)
    assert told in str(ended.status)
    assert "\n" not in str(ended.status)
    assert "Traceback" not in ended.out + ended.err


@pytest.mark.parametrize(
    "target", ["os.system", "subprocess.Popen", "logging.handlers.SocketHandler", "antigravity.fly"]
)
def test_nothing_but_a_module_is_ever_called(command, nets, monkeypatch, target):
    """Also not imported, where it can be told before that there is no such name: some modules act on import."""
    name = nets(SIREN)
    monkeypatch.setattr("subprocess.Popen", None)
    sys.modules.pop("antigravity", None)
    told = str(command("model=siren", *TINY, "hydra.searchpath=[mine]", f"model._target_={target}").status)
    assert f"model._target_={target}: " in told
    assert "must be a class of torch.nn.modules.module.Module" in told or "has no fly" in told
    assert "antigravity" not in sys.modules
    assert name not in sys.modules


def test_a_directory_of_choices_cant_bring_its_code(command, tmp_path, monkeypatch):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    for place in ("mine/brought.py", "mine/__init__.py", "here.py"):
        (tmp_path / place).write_text(SIREN + "\nopen('evil', 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as by python -m
    words = ["model=siren", *TINY, "hydra.searchpath=[mine]"]
    for target, why in (
        ("here.Siren", "lies where the command is called, which isn't enough"),
        ("mine.brought.Siren", "lies where the command is called, which isn't enough"),
        ("brought.Siren", "there is no module brought"),
    ):
        (tmp_path / "mine" / "model" / "siren.yaml").write_text(f"_target_: {target}\n")
        assert why in str(command(*words).status)
        with pytest.raises(ConfigError, match=why):
            compose(model="siren", hydra__searchpath=["mine"])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "mine" / "model" / "siren.yaml").write_text("_target_: mine.brought.Siren\n")
    for named in (words, ["-m", "curve=1,4", *words], ["-m", "curve=1,4", "hydra/launcher=basic", *words]):
        assert "lies in a directory of choices" in str(command(*named).status)
    check_named("key", "here.Siren")
    assert not (tmp_path / "evil").exists()


def test_a_function_of_ones_own():
    assert resolve("loss._target_", "torch.nn.functional.softplus") is torch.nn.functional.softplus
    with pytest.raises(ConfigError, match=r"^loss\._target_=torch\.nn\.functional\.nothing: can't be imported"):
        resolve("loss._target_", "torch.nn.functional.nothing")


def test_a_refusal_needs_no_torch(nets, tmp_path):
    nets(SIREN)
    program = (
        "import sys, runpy; sys.argv = ['train', 'model=siren', 'hydra.searchpath=[mine]', 'depth=0']\n"
        "sys.path.append('mine')\n"
        "try: runpy.run_module('fractal_ifs.train', run_name='__main__')\n"
        "finally: print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert found.stdout.splitlines()[-1] == "False"
    assert found.stderr.strip() == "error: depth=0: must be a whole number >= 1 and <= 100000"


def test_a_class_defined_anew_is_tried_anew(nets):
    """As where a cell of a notebook is run again; its name is that of before."""
    name = nets(SIREN)
    config = of_own(name, steps=20, eval_every=10)
    [before] = trained([config])
    module = sys.modules[name]
    exec(SIREN.replace("torch.sin", "torch.cos"), module.__dict__)
    [after] = trained([config])
    assert type(after.model) is not type(before.model)
    assert after.history != before.history
    for source, why in (REFUSED["last axis"], REFUSED["dropout"]):
        exec(source, module.__dict__)
        with pytest.raises(ConfigError, match=re.escape(why)):
            check(own(name), 2, 6, 2)


def test_another_source_is_told_and_a_class_that_is_gone_is_one_line(nets, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("fractal_ifs.training.rounds.CHECKPOINT_SECONDS", 0)
    name = nets(SIREN)
    config = of_own(name, steps=40, eval_every=20)
    directory = tmp_path / "run"
    [half] = killed([config], [directory], 1)
    edited(tmp_path / "mine" / f"{name}.py", SIREN + "\n")
    trained([config], 0, [half])
    [line] = [text for text in caplog.messages if "other versions" in text]
    assert re.search(r"model_source \w{12} there, \w{12} here", line)
    load(directory)
    sys.modules.pop(name)
    (tmp_path / "mine" / f"{name}.py").unlink()
    with pytest.raises(ConfigError, match=rf"can't be made: model\._target_={name}\.Siren: there is no module"):
        load(directory)


def test_the_command_itself(nets, tmp_path):
    """In a process of its own: the class is found by PYTHONPATH, and tried only after MKL was asked for equal bits."""
    nets(SIREN)
    path = os.pathsep.join(["mine", *filter(None, [os.environ.get("PYTHONPATH")])])
    words = ["model=siren", *TINY[:-1], "logger=csv", "hydra.searchpath=[mine]"]
    ended = subprocess.run(
        [sys.executable, "-m", "fractal_ifs.train", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert "best test accuracy" in ended.stdout
    assert "bits depend" not in ended.stdout + ended.stderr


@pytest.mark.slow
def test_worker_processes_find_the_class(command, nets, tmp_path):
    nets(SIREN)
    words = ["model=siren", *TINY[2:-1], "logger=csv", "hydra.searchpath=[mine]", "sweep=own"]
    assert command("-m", *words, "width=6,7", "depth=2", "seed=0,1", "workers=2").status == 0
    assert len(list((tmp_path / "multirun" / "own").rglob("checkpoint.pt"))) == 4


@pytest.mark.parametrize("text", ["nb\xa0sp", "two\nlines"])
def test_text_that_no_table_could_hold_is_refused(nets, text):
    nets(SIREN.replace("omega=10.0", "omega=10.0, tag=None"), "omega: 10\ntag: null\n")
    with pytest.raises(ConfigError, match=r"^model.tag=.*: must be text that can be printed on one line$"):
        compose(model="siren", model__tag=text, hydra__searchpath=["mine"])


def test_the_global_generator_stays_as_it_was(nets):
    name = nets(SIREN)
    before = torch.get_rng_state()
    first, again = Run(of_own(name), None), Run(of_own(name), None)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.params, again.params)
    assert not torch.equal(first.params, Run(of_own(name, 1), None).params)


# Ours


def test_in_double_precision_weights_are_drawn_as_the_config_says(nets):
    name = nets(SIREN)

    def weights(precision: str, draw: str = "float32"):
        config = small(trainer__precision=precision, trainer__draw=draw)
        return Run(dataclasses.replace(config, model=OwnModel.parse({"_target_": f"{name}.Siren"})), None).params

    single, double, before = weights("32-true"), weights("64-true"), weights("64-true", "precision")
    assert torch.equal(single.double(), double)
    assert before.dtype == torch.float64
    assert not torch.equal(before, before.float().double())


def test_a_varied_mlp_that_varies_nothing_is_the_mlp():
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    for sums in (False, True):
        plain = MLP(2, 6, 4, sum_last=sums, generator=torch.Generator().manual_seed(1))
        varied = VariedMLP(2, 6, 4, sum_last=sums, generator=torch.Generator().manual_seed(1))
        assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), varied.parameters(), strict=True))
        assert torch.allclose(plain(x), varied(x), atol=1e-6)


def test_the_networks_are_their_formulas():
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ACTIVATIONS["gelu"](x), torch.nn.functional.gelu(x, approximate="tanh"), atol=1e-6)
    draw = torch.Generator().manual_seed(1)
    net: Any = VariedMLP(2, 6, 3, generator=draw, activation="tanh", norm="layer", residual=True)

    def layer(j: int, h: torch.Tensor) -> torch.Tensor:
        z = h @ net.hidden[j].weight.T + net.hidden[j].bias
        return torch.tanh((z - z.mean(-1, keepdim=True)) / (z.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt())

    h = layer(0, x)
    h = h + layer(1, h)
    h = h + layer(2, h)
    assert torch.allclose(net(x), (h @ net.readout.weight.T + net.readout.bias)[:, 0], atol=1e-5)
    res = ResMLP(2, 6, 2, generator=draw, activation="relu", norm="none", expansion=2)
    h = res.first(x)
    for up, down in zip(res.up, res.down, strict=True):
        assert up.weight.shape == (12, 6)
        h = h + down(up(h).relu())
    assert torch.allclose(res(x), res.readout(h)[:, 0], atol=1e-5)


def test_a_point_s_word_is_what_the_maps_of_its_address_undo():
    """The law draws points of K_5 by cells; token j is the point after the inverses of its first j maps."""
    for name in ("cantor2d", "vicsek"):
        maps, draw = torch.from_numpy(small(fractal=name).fractal.ifs.offsets), torch.Generator().manual_seed(0)
        address = torch.randint(len(maps), (50, 5), generator=draw)
        x = torch.rand(50, maps.shape[1], generator=draw, dtype=torch.float64) * 1.8 - 0.9
        expected = [x]
        for j in reversed(range(5)):
            x = x / 3 + maps[address[:, j]]
            expected.append(x)
        found = zooms(x, 3, 5)
        assert torch.allclose(found, torch.stack(expected[::-1], 1), atol=1e-9)
        assert torch.equal(zooms(x, 3, 0)[:, 0], x)


def test_cells_too_small_for_single_precision_are_refused():
    assert small(model="transformer", model__levels=15).model.levels == 15
    with pytest.raises(ConfigError, match=r"^model\.levels=16: must be at most 15 with model\.base=3$"):
        small(model="transformer", model__levels=16)


def test_the_transformer_is_its_formula():
    draw = torch.Generator().manual_seed(1)
    net: Any = Transformer(2, 6, 1, generator=draw, levels=2)
    x = torch.randn(9, 2, generator=draw)

    def norm(j: int, h: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(h, (6,))

    h = net.first(zooms(x, 3, 2)) + net.level
    q, k, v = net.reads[0](norm(0, h)).chunk(3, -1)
    h = h + net.writes[0](torch.nn.functional.scaled_dot_product_attention(q, k, v))
    h = h + net.down[0](net.up[0](norm(1, h)).relu())
    assert torch.allclose(net(x), net.readout(norm(2, h).mean(1))[:, 0], atol=1e-5)


def test_old_fingerprints_stay_and_skip_sum_is_sum_last():
    assert small(model__skip="sum").fingerprint == small(model__sum_last=True).fingerprint
    assert choose(small(model__skip="sum")) == choose(small())
    assert len({small(**keys).fingerprint for keys in [{}, *CONFIGS.values()]}) == 6
    with pytest.raises(ConfigError, match=r"model\.skip=residual: must be none or sum with model\.sum_last=true"):
        small(model__skip="residual", model__sum_last=True)
    for key in ("activation=tanh", "norm=layer", "skip=residual"):
        name, _, value = key.partition("=")
        with pytest.raises(ConfigError, match=f"training=layerwise: needs model=mlp, not model.{key}"):
            small(training="layerwise", **{f"model__{name}": value})
        assert str(choose(small(**{f"model__{name}": value})).reason).startswith(f"model.{key}: the native engine")


def test_a_table_says_which_network_it_was(nets):
    usual = {"width": 20, "depth": 5, "data__train_size": 50_000, "data__test_size": 5000}
    assert setting_of(small(**usual)).differs == ""
    assert setting_of(small(model__activation="tanh", **usual)).differs == "model.activation=tanh"
    assert setting_of(small(model="resmlp", **usual)).differs == "model.name=resmlp"
    assert setting_of(small(model="resmlp", model__expansion=2, **usual)).differs == (
        "model.expansion=2.0, model.name=resmlp"
    )
    name = nets(SIREN)
    assert setting_of(of_own(name, **usual)).differs == f"model._target_={name}.Siren, model.name=Siren"
    assert len({setting_of(small(**keys, **usual)).setting for keys in ({}, {"model": "resmlp"})}) == 2


def theorem1(**keys):
    usual = {"model": "theorem1", "fractal": "cantor2d", "fractal__depth": 2, "depth": 5, "width": 37}
    return small(**{**usual, "trainer__precision": "64-true", **keys})


def test_theorem_1s_network_is_right_before_it_is_trained():
    found = Run(theorem1(data__margin=0.01, curve=4), None)
    assert isinstance(found.model, MLP)
    assert (found.model(found.data.x_test.double()) * found.data.y_test > 0).all()
    single = Run(theorem1(data__margin=0.01, trainer__precision="32-true"), None)
    assert (single.model(single.data.x_test) * single.data.y_test > 0).all()
    moved = Run(theorem1(data__margin=0.01, model__noise=0.01), None)
    ratio = (moved.params / found.params)[found.params != 0]
    assert ratio.std().item() == pytest.approx(0.01, rel=0.2)
    assert not moved.params[found.params == 0].any()
    assert choose(theorem1(trainer__precision="32-true")) == choose(small())


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            {"width": 34},
            "width=34 depth=5: must be at least 35 and 4 with model=theorem1, fractal=cantor2d and fractal.",
        ),
        ({"depth": 3}, "width=37 depth=3: must be at least 35 and 4 with model=theorem1"),
        ({"fractal": "vicsek"}, "model=theorem1: fractal=vicsek: must have cells that are apart; 4 pairs touch"),
        ({"fractal": "pentaflake_pentagon"}, "fractal=pentaflake_pentagon: Theorem 1 needs a box as K0"),
        ({"model__gamma": 0.5}, "model=theorem1: margin=0.5: must be in"),
        ({"model__noise": -1}, "model.noise=-1: must be a finite number >= 0"),
    ],
)
def test_where_theorem_1s_network_cant_be_built_is_one_line(keys, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        theorem1(**keys)


@pytest.mark.parametrize("network", [VariedMLP, ResMLP, Transformer])
def test_an_initialisation_that_a_network_lacks_is_refused(network):
    with pytest.raises(ConfigError, match=r"model\.init=he: must be one of paper, theory, pytorch"):
        network(2, 8, 2, init="he", generator=torch.Generator())

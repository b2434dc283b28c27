"""A loss of a user's own: a function through the command line, its refusals, its bits."""

import dataclasses
import itertools
import logging
import re
import sys

import pytest
import torch
from conftest import edited, small
from test_training import relative, same, trained

from fractal_ifs import ConfigError, load
from fractal_ifs.config.compose import compose
from fractal_ifs.config.loss import OwnLoss, parse_loss
from fractal_ifs.engines import fusing
from fractal_ifs.engines.choice import choose
from fractal_ifs.engines.own_loss import check
from fractal_ifs.results.protocol import setting_of
from fractal_ifs.runs.run import Run

SOFT = """
import torch

def soft(f, y, *, sharp=1.0):
    return -torch.nn.functional.logsigmoid(sharp * (y * f)) / sharp
"""
TINY = ["width=6", "depth=2", "steps=20", "eval_every=10", "data.train_size=200", "data.test_size=50"]
INLINE = "hydra.launcher.executor=inline"
NUMBERS = itertools.count()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """``write(SOURCE)``: the name of a new module in the directory mine, which is on Python's path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    made = []

    def written(source: str = SOFT, yaml: str = "sharp: 1\n") -> str:
        made.append(name := f"losses{next(NUMBERS)}")
        (tmp_path / "mine" / "loss").mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / f"{name}.py").write_text(source)
        (tmp_path / "mine" / "loss" / "soft.yaml").write_text(f"_target_: {name}.soft\n{yaml}")
        return name

    yield written
    for name in made:
        sys.modules.pop(name, None)


def own(module: str, **keys) -> OwnLoss:
    loss = parse_loss({"_target_": f"{module}.soft", **keys})
    assert isinstance(loss, OwnLoss)
    return loss


def of_own(module: str, keys=None, **others):
    """The config of a small run with a loss of a user's own."""
    return dataclasses.replace(small(**{"fractal": "vicsek", **others}), loss=own(module, **(keys or {})))


def test_a_loss_of_ones_own_through_the_command_line(command, write, tmp_path):
    name = write()
    words = ["-m", "loss=soft", "fractal=vicsek", "hydra.searchpath=[mine]", *TINY, "logger=csv", INLINE, "sweep=own"]
    ended = command(*words, "curve=1,4", "loss.sharp=1,2")
    assert ended.status == 0
    assert "loss.sharp" in ended.out
    directories = sorted(path.parent for path in (tmp_path / "multirun" / "own").rglob("result.json"))
    assert len(directories) == 4
    record, history, config, model = load(directories[0])
    assert (record["loss"], record["engine"]) == ("soft", "torch")
    assert config.loss.spelled() == {"name": "soft", "_target_": f"{name}.soft", "sharp": 1}
    assert re.fullmatch("[0-9a-f]{12}", record["loss_source"])
    assert history.test_loss.notna().all()
    assert model(torch.zeros(3, 2)).shape == (3,)
    assert len({load(directory).record["fingerprint"] for directory in directories}) == 4
    assert "4 of 4 jobs are finished" in command(*words, "curve=1,4", "loss.sharp=1,2").out


@pytest.mark.parametrize("engine", ["torch", "lightning"])
def test_it_equals_ours_of_the_same_formula(write, engine):
    config = of_own(write(), {"sharp": 1}, steps=60, eval_every=20, engine=engine)
    [found], [ours] = trained([config]), trained([dataclasses.replace(config, loss="logistic")])
    assert torch.equal(found.params, ours.params)
    assert [row.numbers[2:] for row in found.history] == [row.numbers[2:] for row in ours.history]
    [sharper] = trained([of_own(config.loss.target.split(".")[0], {"sharp": 8}, steps=60, engine=engine)])
    assert relative(sharper.params, ours.params) > 1e-3


def test_lightning_agrees_with_the_stacked_engine(write):
    config = of_own(write(), {"sharp": 3}, steps=60, eval_every=20)
    [one] = trained([dataclasses.replace(config, engine="lightning")])
    [other] = trained([dataclasses.replace(config, engine="torch")])
    assert relative(one.params, other.params) <= 1e-5


def test_company_changes_no_bit(write):
    name = write()
    configs = [of_own(name, {"sharp": 2}, seed=seed, steps=40, eval_every=20, batch_size=50) for seed in range(4)]
    together = trained(configs, stack=3)
    assert fusing.why_not(together[0]) is None
    for config, found in zip(configs, together, strict=True):
        same(found, trained([config])[0])


def test_a_loss_whose_bits_rest_on_their_place_trains_one_by_one(write, caplog):
    caplog.set_level(logging.INFO)
    name = write("import torch\n\ndef soft(f, y):\n    return torch.nn.functional.softplus(-y * f)\n", "")
    configs = [of_own(name, seed=seed, steps=20, eval_every=10, batch_size=50) for seed in range(3)]
    together = trained(configs, stack=3)
    [said] = [text for text in caplog.messages if "one by one" in text]
    assert said.endswith("the numbers of loss=soft have other bits in company")
    for config, found in zip(configs, together, strict=True):
        same(found, trained([config])[0])


def test_who_trains_it_and_what_it_is_called(write):
    name = write()
    config = of_own(name, {"sharp": 2})
    chosen = choose(config)
    assert chosen.engine == "torch"
    assert str(chosen.reason).startswith("loss=soft: the native engine has hinge, ")
    same_again = of_own(name, {"sharp": 2})
    assert config == same_again
    assert hash(config.loss) == hash(same_again.loss)
    others = [
        of_own(name, {"sharp": 3}),
        of_own(name, {"sharp": 2, "name": "softer"}),
        of_own(name + "x", {"sharp": 2}),
    ]
    assert len({each.fingerprint for each in (config, *others)}) == 4
    assert type(config).parse(config.plain()) == config
    assert f"loss=soft, loss._target_={name}.soft, loss.sharp=2" in setting_of(config).differs
    with pytest.raises(ConfigError, match="loss=soft: must be one of cross_entropy with data=cifar10"):
        dataclasses.replace(compose(data="cifar10", model="cnn", width=2, depth=1, logger="none"), loss=config.loss)


def function(body: str, arguments: str = "f, y") -> str:
    return f"import torch\n\ndef soft({arguments}):\n    {body}\n"


REFUSED = {
    "no such name": ("def other(f, y): pass\n", "has no soft"),
    "raises": ("def soft(f, y): pass\nraise SystemExit(3)\n", "can't be imported (SystemExit: 3)"),
    "a number": ("soft = 3\n", "must be a function"),
    "a class": ("class soft:\n    def __init__(self, f, y): pass\n", "must be a function"),
    "other names": (function("return a - b", "a, b"), "its first two parameters must be f and y"),
    "one argument": (function("return f", "f"), "its first two parameters must be f and y"),
    "fails": (function("return f + 'x'"), "it failed (TypeError: "),
    "no tensor": (function("return 1.0"), "must return a tensor, not float"),
    "mean": (function("return (f - y).square().mean()"), "for each output, (14,), not ()"),
    "mean of the last axis": (function("return (f - y).square().mean(-1)"), "not (); the mean is ours to take"),
    "more": (function("return torch.cat([f, y])"), "must return a loss for each output, (14,), not (28,)"),
    "doubles": (function("return (f - y).double().square()"), "must return numbers of float32"),
    "infinite at 0": (function("return (y * f).abs().log()"), "its loss must be finite where f is 0"),
    "steep at 0": (function("return (y * f).abs().sqrt()"), "its gradient must be finite where f is 0"),
    "a constant": (function("return torch.ones_like(f)"), "isn't differentiable: f gets no gradient"),
    "steps": (function("return (y * f < 0).float()"), "isn't differentiable: f gets no gradient"),
    "signs": (function("return (y * f).sign()"), "isn't differentiable: f gets no gradient"),
    "detached": (function("return (f.detach() - y).square()"), "isn't differentiable: f gets no gradient"),
    "centred": (function("return (f - f.mean() - y).square()"), "must be elementwise"),
    "along the last axis": (function("return -(y * f).log_softmax(-1)"), "must be elementwise"),
    "across networks": (
        function("return (f - y).square() * (1 if f.dim() == 1 else 2)"),
        "must be elementwise",
    ),
    "noisy": (function("return (f - y).square() * torch.rand_like(f)"), "isn't deterministic"),
    "in place": (function("y *= 2\n    return (f - y).square()"), "must not change f or y in place"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_function_that_breaks_the_contract_is_refused_in_one_line(write, kind):
    source, why = REFUSED[kind]
    name = write(source)
    with pytest.raises(ConfigError) as told:
        check(own(name))
    assert str(told.value).startswith(f"loss._target_={name}.soft: ")
    assert why in str(told.value)
    assert "\n" not in str(told.value)


def test_refusals_come_before_anything_is_written(command, write, tmp_path):
    name = write(function("return (f - y).square().mean(-1)"), "")
    for words in (["curve=1"], ["-m", "curve=1,4"]):
        told = str(command("loss=soft", *TINY, "logger=none", *words, "hydra.searchpath=[mine]").status)
        assert told.startswith(f"error: loss._target_={name}.soft: must return a loss for each output")
    assert not list(tmp_path.rglob("*result*"))
    assert not list(tmp_path.rglob(".hydra"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("+loss.shrp=3", "loss.shrp=3: there is no such key; did you mean loss.sharp?"),
        ("loss.sharp=much", "it failed (TypeError: "),
        ("+loss.f=3", "loss.f=3: can't be a key of the loss: the run gives it"),
        ("+loss.a={_target_:os.system}", "loss.a._target_=os.system: can't stand here"),
        ("loss._target_=nowhere.soft", "loss._target_=nowhere.soft: there is no module nowhere; it must be importable"),
        ("loss._target_=soft", "loss._target_=soft: must be a function with its module, as losses.soft"),
        ("loss._target_=os.system", "loss._target_=os.system: its first two parameters must be f and y"),
        ("loss._target_=subprocess.call", "loss._target_=subprocess.call: its first two parameters must be f and y"),
        ("loss._target_=antigravity.fly", "has no fly"),
        ("+loss.name=hinge", "loss.name=hinge: must be letters, digits, _ and -, and none of hinge, logistic"),
        ("engine=native", "engine=native: must be auto or torch here (loss=soft: the native engine has hinge"),
    ],
)
def test_bad_keys_are_refused_in_one_line(command, write, words, told):
    write()
    ended = command("loss=soft", *TINY, "logger=none", "hydra.searchpath=[mine]", words)
    assert told in str(ended.status)
    assert "\n" not in str(ended.status)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("group", ["loss", "callbacks", "logger"])
def test_a_directory_of_choices_cant_bring_its_code(tmp_path, monkeypatch, group):
    """Nor can the directory that a command is called in: nothing of either is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    evil = f"open({str(tmp_path / 'evil')!r}, 'w')\ndef soft(f, y): pass\n"
    (tmp_path / "here.py").write_text(evil)
    (tmp_path / "mine" / group).mkdir(parents=True)
    (tmp_path / "mine" / "brought.py").write_text(evil)
    chosen = {"loss": "soft", "callbacks": ["soft"], "logger": ["soft"]}[group]
    keys = {group: chosen, "engine": "lightning", "hydra__searchpath": ["mine"]}
    for target, path, why in (
        ("here.soft", "", "lies where the command is called, which isn't enough"),
        ("mine.brought.soft", "", "lies where the command is called, which isn't enough"),
        ("brought.soft", "", "there is no module brought"),
        ("mine.brought.soft", str(tmp_path), "lies in a directory of choices"),
    ):
        monkeypatch.setenv("PYTHONPATH", path)
        text = f"_target_: {target}\n" if group == "loss" else f"soft:\n  _target_: {target}\n"
        (tmp_path / "mine" / group / "soft.yaml").write_text(text)
        with pytest.raises(ConfigError, match=rf"^{group}\.(soft\.)?_target_={re.escape(target)}: .*{why}"):
            compose(**keys)
    assert not (tmp_path / "evil").exists()


def test_a_function_defined_anew_is_tried_anew(write):
    """As where a cell of a notebook is run again; its name is that of before."""
    name = write()
    check(own(name))
    exec("def soft(f, y): return (f * y).mean(-1)", sys.modules[name].__dict__)
    with pytest.raises(ConfigError, match="there is no such key"):
        check(own(name, sharp=2))
    with pytest.raises(ConfigError, match="must return a loss for each output"):
        check(own(name))


def test_an_object_without_a_hash_may_be_a_loss(write):
    """As one of a dataclass, which has none: it is only tried each time."""
    made = "from dataclasses import dataclass\n\n@dataclass\nclass Kind:\n    sharp: float\n"
    made += "    def __call__(self, f, y):\n        return -(self.sharp * f * y).sigmoid().log()\n\nsoft = Kind(2.0)\n"
    name = write(made)
    check(own(name))
    [run] = trained([of_own(name, steps=20, eval_every=10)])
    assert run.history[-1].finite


def test_another_source_is_told(write, tmp_path, caplog):
    name = write()
    config = of_own(name, steps=40, eval_every=20)
    directory = tmp_path / "run"
    [begun] = trained([dataclasses.replace(config, steps=20)], 0, [directory])
    assert begun.record()["loss_source"]
    before = Run(config, None).versions["loss_source"]
    file = tmp_path / "mine" / f"{name}.py"
    file.write_text(SOFT + "\n")
    assert Run(config, None).versions["loss_source"] == before  # of what this process has imported, and trains
    edited(file, SOFT + "\n")
    assert Run(config, None).versions["loss_source"] not in (None, before)


def test_help_shows_it_with_its_directory(write, monkeypatch, capsys, tmp_path):
    from fractal_ifs.help.train import screen

    write(yaml="# Softer than hinge.\nsharp: 1\n")
    text = screen(["loss", "hydra.searchpath=[mine]", "--help"])
    assert "soft " in text
    assert "squared_hinge" in text
    assert screen(["loss.sharp", "hydra.searchpath=[mine]", "--help"]) == "keys of loss=soft:\n  loss.sharp=1"
    (tmp_path / "mine" / "loss" / "bad.yaml").write_text("[")
    assert "bad" in screen(["loss", "hydra.searchpath=[mine]", "--help"])


def test_layer_by_layer(write):
    config = of_own(write(), {"sharp": 1}, steps=20, eval_every=10, training="layerwise")
    [found] = trained([config])
    [ours] = trained([dataclasses.replace(config, loss="logistic", engine="torch")])
    assert torch.equal(found.params, ours.params)

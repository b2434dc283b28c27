"""A run's bits are its own: alone, in any company, at any place in a stack, killed or interrupted and gone on."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import changed, read_checkpoint, small
from test_training import ENGINES, Stop, same, trained

from fractal_ifs import mkl
from fractal_ifs.config.loss import OF_POINTS
from fractal_ifs.config.optimizer import parse_optimizer
from fractal_ifs.config.schedule import parse_schedule
from fractal_ifs.data.points import Points
from fractal_ifs.engines import stack
from fractal_ifs.engines.steps import Steps
from fractal_ifs.runs import kernels
from fractal_ifs.runs.checkpoints import write_checkpoint
from fractal_ifs.runs.records import Status
from fractal_ifs.runs.run import Run

equal_bits = pytest.mark.skipif(
    not torch.backends.mkl.is_available() and kernels.company_matters(), reason=f"torch has {kernels.torch_kernels()}"
)


@lru_cache(maxsize=16)
def points(d: int, n: int, n_test: int, seed: int) -> Points:
    """Points of any dimension, which one line separates only roughly."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n + n_test, d, generator=generator) * 2 - 1
    y = torch.where(x.sum(1) + torch.randn(n + n_test, generator=generator) / 2 > 0, 1.0, -1.0)
    return Points(x[:n].clone(), y[:n].clone(), x[n:].clone(), y[n:].clone())


class Case:
    """Some runs of one random shape, which differ in all that may differ within a stack."""

    def __init__(self, chance: random.Random, precision: str, largest: int):
        odd = (1, 2, 3, 5, 7, 9, 11, 13, 15, 17, 20)
        self.shape = shape = {
            "width": chance.choice(odd) if chance.random() < 0.4 else chance.randint(1, largest),
            "depth": chance.randint(1, 5),
            "batch_size": chance.choice(odd) if chance.random() < 0.3 else chance.randint(1, largest * 2 - 12),
            "loss": chance.choice(OF_POINTS),
            "model.sum_last": chance.random() < 0.3,
            "training": chance.choice(["joint", "joint", "joint", "layerwise"]),
            "trainer.precision": precision,
        }
        self.d = chance.randint(1, 5)
        has = {name for name in ("decay", "clip", "average", "momentum", "betas") if chance.random() < 0.3}
        optimizer = chance.choice(["adam", "adam", "adamw", "sgd"])
        self.configs: list[Any] = []
        longest = 400 if shape["width"] < 25 and chance.random() < 0.2 else 24
        for number in range(chance.randint(2, 5)):
            own: dict[str, Any] = {
                "eval_every": chance.randint(1, longest // 2),
                "steps": chance.randint(1, longest),
                "lr": 10 ** chance.uniform(-4, -1.5),
                "seed": chance.choice([number, 0]),  # those of one seed share their points
                "data.train_size": int(shape["batch_size"] * chance.uniform(1, 4)) if number else shape["batch_size"],
                "data.test_size": chance.randint(1, 300),
            }
            of_optimizer: dict[str, Any] = {"name": optimizer}
            if "decay" in has:
                of_optimizer["weight_decay"] = 10 ** chance.uniform(-4, -1)
            if "clip" in has:
                of_optimizer["clip"] = 10 ** chance.uniform(-2, 0)
            if "average" in has and shape["training"] == "joint":
                of_optimizer["average"] = chance.choice(["ema", "swa"])
                of_optimizer["average_begin"] = chance.randrange(own["steps"])
            if "momentum" in has and optimizer == "sgd":
                of_optimizer |= {"momentum": chance.uniform(0.1, 0.99), "nesterov": "betas" in has}
            if "betas" in has and optimizer != "sgd":
                of_optimizer["betas"] = [chance.uniform(0.5, 0.9), chance.uniform(0.9, 0.9999)]
            schedule = {"name": chance.choice(["constant", "linear", "cosine", "inverse"])}
            own["optimizer"] = parse_optimizer(of_optimizer)
            own["schedule"] = parse_schedule({**schedule, "warmup": chance.choice([0, own["steps"] // 2])})
            config = small(engine="torch")
            for key, value in {**shape, **own}.items():
                config = changed(config, key, value)
            self.configs.append(config)

    def build_data(self, config: Any, device: Any) -> Points:
        """In place of ``runs.build.build_data``."""
        return points(self.d, config.data.train_size, config.data.test_size, config.seed)


def killed(configs: list[Any], directories: list[Path], chance: random.Random) -> list[Path]:
    """Copies of the runs' directories as a kill in a random round would leave them."""
    copies = [directory.with_suffix(".killed") for directory in directories]
    left = chance.randint(1, 4)

    def copy(_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            for directory, there in zip(directories, copies, strict=True):
                if directory.exists():
                    shutil.copytree(directory, there)

    trained(configs, chance.randint(0, 3), directories, copy)
    return copies


def interrupted(configs: list[Any], directories: list[Path], chance: random.Random) -> list[Path]:
    """The runs' directories after Ctrl-C in a random step, or between two rounds."""
    losses, left = stack.losses, chance.randint(1, 2 * max(config.steps for config in configs))

    def signalled(*arguments: Any) -> torch.Tensor:
        nonlocal left
        left -= 1
        if left == 0:
            signal.raise_signal(signal.SIGINT)
        return losses(*arguments)

    rounds = None if chance.random() < 0.7 else Stop(chance.randint(1, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack, "losses", signalled)
        with contextlib.suppress(KeyboardInterrupt):
            trained(configs, chance.randint(0, 3), directories, rounds)
    return directories


def try_companies(seed: int, cases: int, precision: str, largest: int, root: Path) -> None:
    for number in range(cases):
        chance = random.Random(f"{seed} {number} {precision}")
        case = Case(chance, precision, largest)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fractal_ifs.runs.run.build_data", case.build_data)
            patch.setattr("fractal_ifs.training.rounds.CHECKPOINT_SECONDS", 0)
            alone = [trained([config])[0] for config in case.configs]
            count = len(case.configs)
            order = chance.sample(range(count), count)
            configs = [case.configs[place] for place in order]
            directories = [root / f"{number}-{place}" for place in order]
            disturb = chance.choice([killed, interrupted])
            directories = disturb(configs, directories, chance)
            company = trained(configs, chance.randint(0, count))
            resumed = trained(configs[::-1], 0, directories[::-1])[::-1]
            for runs in (company, resumed):
                for place, run in zip(order, runs, strict=True):
                    try:
                        same(run, alone[place])
                    except AssertionError as error:
                        which = "in company" if runs is company else "gone on"
                        error.add_note(f"{which}: seed {seed}, number {number}: {case.shape}, d={case.d}")
                        raise


@equal_bits
@pytest.mark.parametrize(
    ("precision", "cases"),
    [("32-true", 8), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("64-true", 8), ("bf16-mixed", 4)))],
)
def test_bits_do_not_depend_on_company_or_kills(tmp_path, precision, cases):
    try_companies(0, cases, precision, 70, tmp_path)


@equal_bits
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_bits_do_not_depend_on_company_or_kills_at_length(tmp_path, precision):
    """Other networks each time: a failure shows the seed."""
    try_companies(random.randrange(10**6), 100, precision, 150, tmp_path)


def test_a_run_that_diverges_ends_at_its_own_step():
    """Not at that of a partner, which is measured more often."""
    wild = small(engine="torch", lr=1e30, steps=60, eval_every=30)
    [alone] = trained([wild])
    diverged, _ = trained([wild, small(engine="torch", seed=1, steps=60, eval_every=7)])
    assert (alone.status, alone.step) == (diverged.status, diverged.step) == ("diverged", 30)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_interrupted_after_it_diverged_ends_where_it_would_have(tmp_path, engine):
    config = small(engine=engine, lr=1e30, eval_every=100)
    [straight] = trained([config])
    begun = Run(config, tmp_path)
    begun.params.fill_(torch.nan)
    begun.step, begun.loss_sum, begun.loss_steps = 57, torch.nan, 57
    begun.status = Status.INTERRUPTED
    begun.save()
    [resumed] = trained([config], 0, [tmp_path])
    for run in (straight, resumed):
        assert (run.status, run.step, run.history[-1].step, run.best_test_acc) == ("diverged", 100, 100, 0)


def test_adams_corrections_do_not_depend_on_the_place():
    runs = [Run(small(seed=seed, trainer__precision="64-true"), None) for seed in range(5)]
    for run, step in zip(runs, [0, 7, 300, 5000, 10**6], strict=True):
        run.step = step
    done, configs = [run.step for run in runs], [run.config for run in runs]
    of_all = Steps(configs, runs[0].params).ahead(done, 137)
    for place, run in enumerate(runs):
        of_one = Steps([run.config], run.params).ahead([run.step], 137)
        for factors, alone in zip(of_all, of_one, strict=True):
            assert torch.equal(factors[:, place], alone[:, 0])
    sizes, roots = of_all
    t = torch.arange(1, 138, dtype=torch.float64)
    assert torch.allclose(sizes[:, 1, 0], -runs[1].config.lr / (1 - 0.9 ** (t + 7)), rtol=1e-14)
    assert torch.allclose(roots[:, 3, 0], (1 - 0.999 ** (t + 5000)).sqrt(), rtol=1e-14)
    assert (sizes[:, 4] == -runs[4].config.lr).all()
    assert (roots[:, 4] == 1).all()


# --- what the bits rest on


needs_mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch has no MKL")
TRAIN = """
import os
from fractal_ifs import run
before = dict(os.environ)
keys = dict(width=7, depth=1, steps=2, eval_every=1, engine="torch", data__train_size=200, data__test_size=50)
for seed in (0, 1):
    print(run(**keys, seed=seed)[0].torch_kernels)
assert os.environ == before
"""
TELL = "\nfrom fractal_ifs.runs.kernels import torch_kernels; print(torch_kernels())"
MULTIPLY = "import torch; torch.ones(3, 9, 9) @ torch.ones(3, 9, 9)"
ADVICE = "before): start the process with MKL_CBWR=AUTO,STRICT"


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != mkl.VARIABLE} | variables
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)


@equal_bits
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 33, 100])
@pytest.mark.parametrize("d", [1, 2])
def test_products_of_any_shape_have_the_bits_that_they_have_alone(d, n, dtype):
    """A single row or column too: of a batch of one, of the readout, of the gradient where d = 1."""
    generator = torch.Generator().manual_seed(0)
    widths = (1, 2, 7, 16, 20, 33, 50, 72)
    assert not any(kernels._differs_in_company(d, n, width, dtype, generator) for width in widths)


@needs_mkl
def test_mkl_is_asked_where_points_are_drawn_before_a_run():
    code = "from fractal_ifs import FractalDistribution; FractalDistribution('sierpinski_triangle').sample(5000)"
    done = python(code + TRAIN)
    assert done.stdout.count("AUTO,STRICT, ") == 2
    assert kernels.UNEQUAL not in done.stdout + done.stderr


@needs_mkl
def test_mkl_is_asked_where_a_network_is_used_before_a_run(tmp_path):
    trained([small(steps=2, eval_every=1, width=20)], 0, [tmp_path])
    code = f"import torch; from fractal_ifs import load; load({str(tmp_path)!r}).model(torch.ones(9, 2))"
    assert "AUTO,STRICT, " in python(code + TELL).stdout


@needs_mkl
def test_where_others_had_multiplied_record_and_warning_say_so():
    done = python(MULTIPLY + TRAIN)
    assert done.stdout.count(kernels.UNEQUAL) == 2
    assert "STRICT" not in done.stdout
    assert done.stderr.count(ADVICE) == 1


@needs_mkl
def test_a_users_own_mode_of_mkl_stays_and_is_told():
    found = python(MULTIPLY + TELL, MKL_CBWR="COMPATIBLE").stdout
    assert " COMPATIBLE, " in found
    assert kernels.UNEQUAL not in found


@needs_mkl
def test_a_users_own_mode_is_tried_not_believed():
    done = python(MULTIPLY + "; import os; os.environ['MKL_CBWR'] = 'AUTO,STRICT'" + TELL)
    assert f" AUTO,STRICT, {kernels.UNEQUAL}, " in done.stdout
    assert "(MKL_CBWR=AUTO,STRICT): start the process with" in done.stderr


def test_the_environment_is_as_it_was(monkeypatch):
    """Also where the variable was empty."""
    ask = mkl.ask_for_equal_bits.__wrapped__
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    for before in (None, "", "AVX2"):
        monkeypatch.delenv(mkl.VARIABLE, raising=False)
        if before is not None:
            monkeypatch.setenv(mkl.VARIABLE, before)
        ask()
        assert os.environ.get(mkl.VARIABLE) == before


@pytest.mark.parametrize(("matters", "word"), [(False, "equal bits as far as tried"), (True, kernels.UNEQUAL)])
def test_of_other_libraries_is_said_what_was_tried(monkeypatch, matters, word):
    monkeypatch.setattr(torch.__config__, "show", lambda: "PyTorch built with:\n - BLAS_INFO=open, BUILD_TYPE=Release")
    monkeypatch.setattr(kernels, "company_matters", lambda: matters)
    assert kernels.torch_kernels.__wrapped__().startswith(f"BLAS open, {word}, ")


@pytest.mark.parametrize(
    ("engine", "there", "told"),
    [
        ("torch", None, "torch_kernels unknown there, "),
        ("torch", f"MKL 2024.2, {kernels.UNEQUAL}", f"torch_kernels MKL 2024.2, {kernels.UNEQUAL} there, "),
        ("native", None, None),
    ],
)
def test_a_checkpoint_of_other_kernels_is_gone_on_from_with_a_note(tmp_path, engine, there, told):
    """None: as the version before left it."""
    if engine == "native":
        pytest.importorskip("fractal_ifs._native_base")
    config = small(engine=engine)
    with pytest.raises(KeyboardInterrupt):
        trained([config], 0, [tmp_path], Stop(1))
    state: Any = read_checkpoint(tmp_path)
    del state["torch_kernels"]
    if there:
        state["torch_kernels"] = there
    write_checkpoint(tmp_path, state)
    [run] = trained([config], 0, [tmp_path])
    assert run.status == "finished"
    log = (tmp_path / "train.log").read_text()
    assert told in log if told else "torch_kernels" not in log

"""The stacked engine's steps as one kernel. It runs on a CPU here, and with ``pytest -m gpu`` on a GPU for real."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import small
from emulation import VARIABLE
from test_optimizers import OPTIMIZERS, SCHEDULES, plain_loop, tiny
from test_training import Stop, relative, same, trained

from fractal_ifs.engines import cuda_device, stack, update
from fractal_ifs.engines.choice import create
from fractal_ifs.engines.steps import StepRule, Steps, Vectors
from fractal_ifs.engines.update import FusedSteps, Update

ALL = {
    **OPTIMIZERS,
    "adam, averaged": {"name": "adam", "average": "ema", "average_decay": 0.9, "clip": 0.1},
    "sgd, averaged": {"name": "sgd", "momentum": 0.9, "average": "swa", "average_begin": 60},
}


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def keys(request, monkeypatch) -> dict[str, Any]:
    """The keys of a run whose steps are a kernel's."""
    if request.param == "gpu":
        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")
        return {"engine": "torch", "trainer": "gpu"}
    request.getfixturevalue("emulated")
    monkeypatch.setattr(stack, "on_gpu", lambda device: True)
    return {"engine": "torch"}


def counted(monkeypatch) -> list[int]:
    """The sizes of the stacks whose steps a kernel does, from now on."""
    sizes, begin = [], FusedSteps.__init__

    def counting(self: FusedSteps, configs: Any, like: Any) -> None:
        begin(self, configs, like)
        sizes.append(len(configs))

    monkeypatch.setattr(FusedSteps, "__init__", counting)
    return sizes


@pytest.mark.parametrize("name", ALL)
def test_300_steps_are_those_of_torch(keys, name, monkeypatch):
    """Of every optimizer with every schedule, in double precision."""
    sizes = counted(monkeypatch)
    keys = {**keys, "trainer.precision": "64-true"}
    configs = [tiny(ALL[name], schedule, seed=1, **keys) for schedule in SCHEDULES.values()]
    for config, run in zip(configs, trained(configs), strict=True):
        params, average, loss = plain_loop(config)
        assert relative(run.params.cpu(), params) <= 1e-9, config.schedule
        assert run.average is None or relative(run.average.cpu(), average) <= 1e-9
        assert run.history[-1].train_loss == pytest.approx(loss, rel=1e-6)
    assert sizes == [len(SCHEDULES)]


def test_in_single_precision_a_run_is_the_same_in_any_company_and_killed(keys, tmp_path):
    configs = [
        tiny(ALL["adam, averaged"], schedule, seed=seed, steps=100, eval_every=20, **keys)
        for seed, schedule in enumerate(SCHEDULES.values())
    ]
    together = trained(configs)
    for number, (config, run) in enumerate(zip(configs, together, strict=True)):
        params, average, _ = plain_loop(config, double=True)
        assert relative(run.params.cpu(), params) <= 2e-5
        assert relative(run.average.cpu(), average) <= 2e-5
        with pytest.raises(KeyboardInterrupt):
            trained([config], 0, [tmp_path / str(number)], Stop(2))
        [alone] = trained([config], 0, [tmp_path / str(number)])
        if keys.get("trainer") == "gpu":  # cuBLAS multiplies one network's matrices by another function than several's
            assert relative(alone.params, run.params) <= 2e-5
        else:
            same(alone, run)


def steps_of(programs: Any, length: int) -> tuple[Any, Any]:
    """What a kernel and PyTorch's operations make of the same numbers."""
    configs = [tiny(ALL[name], "cosine", seed=m) for m, name in enumerate(programs)]
    drawn = torch.Generator().manual_seed(length)
    first = Vectors(*(torch.randn(len(configs), length, generator=drawn) for _ in Vectors._fields))
    first.exp_avg_sq.square_()
    found = []
    for kind in (FusedSteps, Steps):
        state = Vectors(*(each.clone() for each in first))
        steps = kind(configs, state.params)
        for columns in zip(*steps.ahead([7] * len(configs), 5), strict=True):
            state.grad.copy_(first.grad)
            steps.update(state, *columns)
        found.append(state._replace(work=first.work))
    return tuple(found)


@pytest.mark.parametrize("length", [1, 255, 256, 1023, 1024, 1025, 40_401])
@pytest.mark.parametrize("name", ALL)
def test_each_number_is_changed_once_whatever_the_length(emulated, name, length):
    ours, torchs = steps_of([name] * 3, length)
    for field, mine, other in zip(Vectors._fields, ours, torchs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-5, atol=1e-6), field
    assert not ours.grad.any()


def test_optimizers_of_one_kernel_share_it(emulated):
    """Betas and eps are its numbers, and gradients are clipped before it."""
    keys = [{"name": "adam"}, {"name": "adam", "betas": [0.8, 0.99]}, {"name": "adam", "clip": 0.1}]
    made = [FusedSteps([tiny(each, "constant")], torch.zeros(1, 9)) for each in keys]
    assert len({id(each.kernel) for each in made}) == 1
    assert len({each.rule for each in made}) == 3


def test_by_way_of_the_driver_the_bits_are_the_same(gpu, emulated, monkeypatch):
    """The struct reaches the kernel through the driver's and NVRTC's functions as it does without them."""
    monkeypatch.setattr(stack, "on_gpu", lambda device: True)
    config = tiny("adam", "cosine", engine="torch")
    [expected] = trained([config])
    monkeypatch.delenv(VARIABLE)
    cuda_device.look_again()
    sizes = counted(monkeypatch)
    [run] = trained([config])
    assert sizes == [1]
    same(run, expected)


def test_a_record_names_the_compiler(emulated):
    on = small().on("gpu").trainer
    engines = [create("torch", 1, each) for each in (on, replace(on, compile=True), small().trainer)]
    assert [engine.computed_by.native_build for engine in engines] == ["C++", None, None]


@pytest.mark.parametrize("why", ["no GPU", "too long", "no kernel"])
def test_where_no_kernel_runs_the_steps_are_pytorchs(emulated, monkeypatch, caplog, why):
    caplog.set_level("INFO")
    update._tell.cache_clear()
    monkeypatch.setattr(stack, "on_gpu", lambda device: True)
    if why == "no GPU":
        monkeypatch.delenv(VARIABLE)
        cuda_device.look_again()
        said = "there is no driver of NVIDIA's here"
    elif why == "too long":
        monkeypatch.setattr(update, "MOST_SLICES", 0)
        said = "a network has 67 parameters, more than a kernel covers"
    else:
        monkeypatch.setenv("CXX", "false")
        monkeypatch.setattr(update, "EACH", 3)  # no kernel of which is there yet
        said = "the kernel of adam's steps doesn't compile"
    config = tiny("adam", "constant", engine="torch")
    [run] = trained([config])
    trained([config])
    assert caplog.text.count(f"the optimizer's steps are those of PyTorch's operations: {said}") == 1
    monkeypatch.setattr(stack, "on_gpu", lambda device: False)
    [plain] = trained([config])
    same(run, plain)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("isa", ["sm_80", "sm_90"])
def test_it_compiles_for_gpus(isa, double):
    try:
        compiler = cuda_device.nvrtc()
    except cuda_device.NoKernel as error:
        pytest.skip(str(error))
    program = Update(StepRule.of(tiny(ALL["adam, averaged"], "constant").optimizer), double)
    assert cuda_device.compiled(compiler, program, isa)[:4] == b"\x7fELF"

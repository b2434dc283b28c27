"""The cuda engine. Its kernel runs on a CPU here, thread by thread, and with ``pytest -m gpu`` on a GPU for real."""

import ctypes
import dataclasses
import importlib.util
import itertools
import json
import logging
import signal
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import small
from emulation import VARIABLE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_killed import test_a_killed_run_goes_on_to_the_same_bits as goes_on
from test_optimizers import OPTIMIZERS, SCHEDULES, plain_loop, tiny
from test_training import ENGINES, PARTNERS, numbers, relative, same, trained

from fractal_ifs.config.run import Job
from fractal_ifs.data import seeds
from fractal_ifs.engines import cuda, cuda_device, cuda_kernel
from fractal_ifs.engines.choice import choose
from fractal_ifs.engines.cuda_device import Emulated, NoKernel, cached
from fractal_ifs.engines.cuda_kernel import MLPLayout, MLPProgram
from fractal_ifs.engines.losses import losses
from fractal_ifs.engines.stacked import StackedEngine
from fractal_ifs.runs.run import Run
from fractal_ifs.training.grouping import groups_of

PLAIN = MLPProgram(2, 8, 3, 100, False, "hinge", 2, False, False)


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def keys(request) -> dict[str, Any]:
    """The keys of a run on the cuda engine."""
    if request.param == "emulated":
        return request.getfixturevalue("emulated")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return {"engine": "cuda", "trainer": "gpu"}


def exactly(config):
    """The parameters, their average and the mean loss of a loop by torch's autograd in double precision."""
    return plain_loop(config, double=True)


# --- what it computes


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_300_steps_are_those_of_torch_in_double_precision(keys, name):
    """Of every optimizer with two schedules, which train together."""
    first = list(OPTIMIZERS).index(name)
    chosen = [list(SCHEDULES.values())[number % len(SCHEDULES)] for number in (first, first + 2)]
    configs = [tiny(OPTIMIZERS[name], schedule, seed=1, **keys) for schedule in chosen]
    assert len(groups_of([Job(config, None) for config in configs])) == 1
    for config, run in zip(configs, trained(configs), strict=True):
        params, _, loss = exactly(config)
        assert relative(run.params.cpu(), params) <= 2e-5, config.schedule
        assert run.history[-1].train_loss == pytest.approx(loss, rel=1e-6)
        assert (run.record()["engine"], run.record()["isa"]) == ("cuda", cuda_device.device().isa)


@pytest.mark.parametrize("loss", cuda_kernel.LOSSES)
def test_losses_are_those_of_their_formulas(keys, loss):
    optimizer = {"name": "adam", "eps": 1e-4}  # a small one would make whole steps of gradients that are round-off
    config = tiny(optimizer, "constant", **keys, loss=loss, steps=100, eval_every=100)
    [run] = trained([config])
    params, _, mean = exactly(config)
    assert relative(run.params.cpu(), params) <= 1e-5
    assert run.history[-1].train_loss == pytest.approx(mean, rel=1e-6)
    f = run.model(run.data.x_test)
    assert run.history[-1].test_loss == pytest.approx(losses(loss, f, run.data.y_test).item(), rel=1e-6)
    share = (run.data.y_test * f > 0).double().mean().item()
    assert run.history[-1].test_acc == pytest.approx(share, abs=1.5 / len(f))  # f may be nothing but round-off


def test_averages_are_those_of_torch_and_are_measured(keys):
    kinds = [{"average": "swa", "average_begin": 100}, {"average": "ema", "average_decay": 0.95, "clip": 0.1}]
    configs = [tiny({"name": "adam", **kind}, "constant", **keys) for kind in kinds]
    for config, run in zip(configs, trained(configs), strict=True):
        params, average, _ = exactly(config)
        assert relative(run.params.cpu(), params) <= 1e-5
        assert relative(run.average.cpu(), average) <= 1e-5
        assert relative(run.average, run.params) > 1e-3
        with run.averaged():
            f = run.model(run.data.x_test)
        share = (run.data.y_test * f > 0).double().mean().item()
        assert run.history[-1].test_acc == pytest.approx(share, abs=1.5 / len(f))


@settings(
    max_examples=6,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    shape=st.tuples(
        st.sampled_from([1, 2, 3, 8]),
        st.integers(1, 44),
        st.integers(1, 8),
        st.integers(1, 128),
        st.booleans(),
        st.sampled_from(cuda_kernel.LOSSES),
        st.sampled_from([0, 1, 2]),
        st.booleans(),
        st.booleans(),
    ).map(lambda values: MLPProgram(*values)),
    tiles=st.tuples(*[st.sampled_from([1, 2, 3])] * 3),
    seed=st.integers(0, 9),
)
def test_any_shape_takes_20_steps_as_in_double_precision(kernels, shape, tiles, seed):
    """Beside autograd, from weights that are given. Tiles of any size; threads in any order; chunks of any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_kernel, "tiles", lambda program: tiles)
        cuda_kernel._layout.cache_clear()
        _compared(Emulated(kernels), shape, seed)
    cuda_kernel._layout.cache_clear()


@pytest.mark.parametrize("width", [45, 52])
def test_the_widths_with_larger_tiles_do_too(kernels, width):
    shape = PLAIN._replace(width=width, depth=4, batch=30)
    assert cuda_kernel.tiles(shape) == (1, 3, 2)
    _compared(Emulated(kernels), shape, 0)


def _compared(kernel, shape, seed):
    generator = np.random.default_rng(seed)
    size = shape.inputs * shape.width + shape.width + (shape.depth - 1) * (shape.width**2 + shape.width)
    size += shape.width + 1
    start = generator.normal(size=size).astype(np.float32) / shape.width**0.5
    x = generator.normal(size=(2 * shape.batch + 3, shape.inputs)).astype(np.float32)
    y = np.sign(generator.normal(size=len(x))).astype(np.float32)
    order = generator.permutation(len(x)).astype(np.int32)
    found = [_steps(kernel, shape, start, x, y, order, threads, cut) for threads, cut in ((0, 2), (1, 1), (2, 2))]
    for other in found[1:]:
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found[0], other, strict=True))
    exact = _exact(shape, start, x, y, order)
    assert np.isfinite(exact[0]).all()
    for mine, reference in zip(found[0], exact, strict=True):
        assert np.abs(mine - reference).max() <= 2e-5 * max(np.abs(reference).max(), 1e-3)


RATE, BETA1, BETA2, EPS, L2, CLIP, SHARE = 0.01, 0.8, 0.9, 1e-2, 0.03, 0.5, 0.25


def _steps(device, shape, start, x, y, order, threads, cut) -> tuple[np.ndarray, ...]:
    """20 steps from the start, ``cut`` in a launch: the parameters, the average and the sum of losses."""

    def there(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array.copy()).to(device.kind)

    tensors = [there(each) for each in (start, start * 0, start * 0, start, x, y, order, np.zeros(1))]
    params, average, total = tensors[0], tensors[3], tensors[7]
    device.order = threads
    kernel = device.compile([shape])[shape]
    for step in range(0, 20, cut):
        t = np.arange(step + 1, step + cut + 1)
        sgd = shape.moments < 2
        first = np.ones(cut) if sgd else 1 / (1 - BETA1**t)
        numbers = np.stack([first, (1 - BETA2**t) ** -0.5, np.ones(cut), np.full(cut, SHARE)], 1).astype(np.float32)
        job, held = np.zeros(1, cuda.JOB), there(numbers)
        for name, tensor in zip(cuda.POINTERS, (*tensors[:7], held, total), strict=True):
            job[name] = tensor.data_ptr()
        job["at"], job["steps"], job["lr"], job["eps"], job["l2"], job["clip"] = step % 2, cut, RATE, EPS, L2, CLIP
        job["beta1"], job["rest1"], job["beta2"], job["rest2"], job["through"] = BETA1, 1 - BETA1, BETA2, 1 - BETA2, 1
        given = there(job.view(np.uint8))
        kernel("train", ctypes.c_void_p(given.data_ptr()), 1)
    found = params, average if shape.averages else params, total
    return tuple(each.cpu().numpy() for each in found)


WIDE = [  # what the tests above leave out: the widths that GPUs are for, with each kind of tiles, and odd shapes
    PLAIN._replace(width=20, depth=5),
    PLAIN._replace(width=50, depth=5),
    PLAIN._replace(width=60, depth=5),
    PLAIN._replace(width=45, depth=4, batch=30, sum_last=True, clips=True, averages=True),
    PLAIN._replace(width=128, depth=1, batch=128, inputs=8, loss="logistic"),
    PLAIN._replace(width=124, depth=2),
    PLAIN._replace(inputs=3, width=33, depth=5, batch=99, moments=1, clips=True),
    PLAIN._replace(inputs=1, width=1, depth=1, batch=1, loss="squared", moments=0),
]


@pytest.mark.gpu
@pytest.mark.parametrize("shape", WIDE, ids=str)
def test_on_a_gpu_wide_networks_take_20_steps_as_in_double_precision(shape):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    _compared(cuda_device.device(), shape, 0)


def _exact(shape, start, x, y, order) -> tuple[np.ndarray, ...]:
    """The same by autograd."""
    p = torch.from_numpy(start).double()
    average, total = p.clone(), 0.0
    m, v = torch.zeros_like(p), torch.zeros_like(p)
    for step in range(20):
        row = torch.from_numpy(order[step % 2 * shape.batch :][: shape.batch].astype(np.int64))
        leaf = p.clone().requires_grad_()
        f = _network(shape, leaf, torch.from_numpy(x).double()[row])
        loss = losses(shape.loss, f, torch.from_numpy(y).double()[row])
        loss.backward()
        assert leaf.grad is not None
        g = leaf.grad
        if shape.clips:
            g = g * min(1, CLIP / (g.norm().item() + 1e-6))
        g = g + L2 * p
        if shape.moments == 2:
            m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
            g = m / (1 - BETA1 ** (step + 1)) / ((v / (1 - BETA2 ** (step + 1))).sqrt() + EPS)
        elif shape.moments == 1:
            g = m = BETA1 * m + g
        p = p - RATE * g
        average = (1 - SHARE) * average + SHARE * p
        total += loss.item()
    return p.numpy(), average.numpy() if shape.averages else p.numpy(), np.array([total])


def _network(shape, params, x):
    from fractal_ifs.networks.mlp import mlp

    k, parameters, at = shape.width, [], 0
    for inputs, units in [(shape.inputs, k), *[(k, k)] * (shape.depth - 1), (k, 1)]:
        for form in ((units, inputs), (units,)):
            parameters.append(params[at : at + int(np.prod(form))].view(form))
            at += parameters[-1].numel()
    assert at == params.numel()
    return mlp(parameters, x, shape.sum_last)


@pytest.mark.skipif("native" not in ENGINES, reason="no compiled engine here")
def test_it_agrees_with_the_native_engine(keys):
    asked = {"fractal": "vicsek", "width": 8, "depth": 5, "steps": 20, "eval_every": 20}
    [run], [native] = trained([small(**asked, **keys)]), trained([small(**asked, engine="native")])
    assert relative(run.params.cpu(), native.params) < 1e-6
    assert run.history[-1].test_acc == native.history[-1].test_acc


def test_orders_are_the_same_on_a_device():
    keys = [(0, 0), (2**63 - 1, 7), (12345, 10**9), (1, 0)]
    for n in (1, 2, 1000):
        found = seeds.permutations(keys, n, "cpu")
        assert found.dtype == torch.int32
        for (seed, epoch), row in zip(keys, found, strict=True):
            assert np.array_equal(row.numpy(), seeds.permutation(seed, epoch, n))


# --- in company, in parts, interrupted


def test_partners_and_their_order_change_nothing(keys):
    configs = [small(**keys, **partner) for partner in PARTNERS]
    configs += [small(**keys, width=5, depth=2, seed=3, optimizer="sgd"), small(**keys, batch_size=33, eval_every=7)]
    configs.append(small(**keys, seed=4, data__test_size=3000))  # several slices beside one
    configs.append(small(**keys, seed=6, eval_every=7, data__train_size=1000))  # other epochs, and fewer steps a round
    together, backwards = trained(configs), trained(configs[::-1])[::-1]
    for config, run, other in zip(configs, together, backwards, strict=True):
        [alone] = trained([config])
        same(run, alone)
        same(other, alone)
        assert run.step == 100


def test_chunks_of_any_size_give_equal_bits(keys, monkeypatch):
    config = tiny({"name": "adam", "average": "swa"}, {"name": "cosine", "warmup": 20}, **keys)
    [straight] = trained([config])
    for steps in (1, 13):
        monkeypatch.setattr(cuda, "STEPS", steps)
        [run] = trained([config])
        same(run, straight)


def test_a_run_that_diverges_says_so_and_harms_nobody(keys):
    calm, wild = small(**keys), small(**keys, lr=1e30, seed=5)
    [expected] = trained([calm])
    run, diverged = trained([calm, wild])
    same(run, expected)
    assert diverged.status == "diverged"


def test_step_numbers_are_computed_once_for_runs_that_agree(emulated, monkeypatch):
    """Here for three of four runs in each launch; those of different schedules have their own."""
    configs = [small(**emulated, seed=seed, lr=rate) for seed, rate in ((0, 1e-3), (1, 1e-3), (0, 1e-2))]
    configs.append(small(**emulated, schedule="cosine"))
    asked, numbers = [], cuda.step_numbers
    monkeypatch.setattr(cuda, "step_numbers", lambda *given: (asked.append(given[1:]), numbers(*given))[1])
    together = trained(configs)
    assert len(asked) == 2 * len(set(asked))
    for config, run in zip(configs, together, strict=True):
        same(run, *trained([config]))


def test_an_order_is_sorted_once_while_the_epoch_before_is_trained(emulated, monkeypatch):
    """Also over an evaluation at an epoch's end; none behind the last step."""
    config = small(**emulated, steps=45, eval_every=15)  # three epochs
    happened, permutations, launch = [], cuda.permutations, cuda._Stack.launch

    def sorting(keys, *given):
        happened.extend(epoch for _, epoch in keys)
        return permutations(keys, *given)

    def launched(self, orders):
        more = launch(self, orders)
        happened.append("launched")
        return more

    monkeypatch.setattr(cuda, "permutations", sorting)
    monkeypatch.setattr(cuda._Stack, "launch", launched)
    trained([config])
    assert [each for each in happened if each != "launched"] == [0, 1, 2]
    assert happened[:3] == [0, 1, "launched"]


def test_a_signal_is_heeded_between_launches(keys, monkeypatch, tmp_path):
    config = small(**keys, steps=100, eval_every=100)
    [straight] = trained([config])
    launch, calls = cuda._Stack.launch, []

    def signalled(self, orders):
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return launch(self, orders)

    monkeypatch.setattr(cuda._Stack, "launch", signalled)
    with pytest.raises(KeyboardInterrupt):
        trained([config], 0, [tmp_path])
    monkeypatch.setattr(cuda._Stack, "launch", launch)
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["status"] == "interrupted"
    assert record["steps"] == 60  # four epochs of 15 steps
    [resumed] = trained([config], 0, [tmp_path])
    same(resumed, straight)


@pytest.mark.slow
def test_a_killed_run_goes_on(emulated, tmp_path):
    goes_on(tmp_path, ["engine=cuda", "width=8", "steps=4000", "workers=1"])


# --- where it doesn't run


def test_refusals(emulated, command, monkeypatch):
    tiny = ["logger=none", "steps=10", "data.train_size=200", "data.test_size=50", "engine=cuda"]
    for words, told in (
        (["width=100"], "engine=cuda: must be auto or torch here (width=100, depth=5: the cuda engine needs"),
        (["width=200"], "width=200: the cuda engine has at most 128"),
        (["batch_size=129"], "batch_size=129: the cuda engine has at most 128"),
        (["depth=9", "width=10"], "depth=9: the cuda engine has at most 8"),
        (["data.test_size=70000000"], "data.test_size=70000000: the cuda engine has at most 67107840"),
        (["model.activation=tanh"], "model.activation=tanh: the cuda engine trains plain networks of ReLUs only"),
        (["training=layerwise"], "training=layerwise: the cuda engine trains all layers together"),
        (["trainer.precision=64-true"], "trainer.precision=64-true: the cuda engine computes in float32"),
    ):
        ended = command(*tiny, *words)
        assert told in ended.status
        assert "\n" not in ended.status
    monkeypatch.delenv(VARIABLE)
    cuda_device.look_again()
    for visible, told in (
        ("", "needs a GPU, and PyTorch finds none here; engine=auto trains on the CPU"),
        ("0", "trains on a GPU: add trainer=gpu"),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert command(*tiny).status == f"error: engine=cuda: {told}"


def test_a_driver_that_is_not_there_is_a_reason(monkeypatch):
    def missing(path):
        raise OSError(path)

    monkeypatch.setattr(cuda_device.ctypes, "CDLL", missing)
    cuda_device.look_again()
    assert cuda_device.unfit(PLAIN, "gpu") == (
        "the cuda engine can't run: there is no driver of NVIDIA's here (libcuda.so.1)"
    )
    chosen = choose(small(engine="cuda").on("gpu"))
    assert (chosen.engine, chosen.reason) == ("torch", cuda_device.unfit(PLAIN, "gpu"))
    cuda_device.look_again()


def test_runs_whose_kernel_does_not_compile_train_on_the_stacked_engine(emulated, tmp_path, monkeypatch, caplog):
    """Those with ``engine=auto``; others train on. An engine that was asked for is no other one."""
    library = Emulated._library

    def picky(self, program):
        if program.width == 7:
            raise NoKernel("the kernel of width 7 doesn't compile: no registers")
        return library(self, program)

    monkeypatch.setattr(Emulated, "_library", picky)
    monkeypatch.setattr("fractal_ifs.training.train.choose", lambda config: choose(small(**emulated)))
    configs = [small(engine="auto", width=7, seed=seed) for seed in range(2)] + [small(engine="auto")]
    directories = [tmp_path / str(number) for number in range(3)]
    with caplog.at_level(logging.WARNING):
        runs = trained(configs, 0, directories)
    assert [run.record()["engine"] for run in runs] == ["torch", "torch", "cuda"]
    assert caplog.messages.count("engine=torch: the kernel of width 7 doesn't compile: no registers") == 1
    assert "no registers" in (directories[0] / "train.log").read_text()
    for run, config in zip(runs[:2], configs, strict=False):
        monkeypatch.setattr("fractal_ifs.training.train.choose", choose)
        [expected] = trained([dataclasses.replace(config, engine="torch")])
        assert torch.equal(run.params, expected.params)
        assert numbers(run) == numbers(expected)
    [failed] = trained([small(width=7, engine="cuda")])
    assert isinstance(failed, NoKernel)


def test_a_kernel_that_computes_something_else_is_not_trusted(emulated, monkeypatch, caplog):
    """With ``engine=auto``: one of width 7, whose learning rate is another. That of width 8 is tried once, and used.

    A run that asks for the engine has it, and takes the trial from none beside it.
    """
    describe, tried = cuda._describe, []

    def wrong(job, run):
        describe(job, run)
        if run.config.width == 7:
            job["lr"] *= 1.1

    trial = cuda.CudaEngine._trial
    monkeypatch.setattr(cuda, "_describe", wrong)
    monkeypatch.setattr(cuda.CudaEngine, "_trial", lambda *given: (tried.append(1), trial(*given))[1])
    monkeypatch.setattr("fractal_ifs.training.train.choose", lambda config: choose(small(**emulated)))
    configs = [small(engine="auto", width=width, seed=seed) for width in (7, 8) for seed in range(2)]
    runs = trained([*configs, small(engine="cuda", width=7)])
    assert [run.record()["engine"] for run in runs] == ["torch", "torch", "cuda", "cuda", "cuda"]
    assert len(tried) == 2
    [told] = [each for each in caplog.messages if each.startswith("engine=torch")]
    assert told.startswith("engine=torch: the kernel of width 7 computes other numbers than torch: ")
    monkeypatch.undo()


@pytest.mark.parametrize("keys", [{"lr": 1.0}, {"optimizer": "sgd", "lr": 30.0}, {"width": 1, "depth": 1}], ids=str)
def test_a_kernel_is_tried_by_steps_that_do_not_diverge(emulated, keys, monkeypatch):
    monkeypatch.setattr("fractal_ifs.training.train.choose", lambda config: choose(small(**emulated)))
    made = []
    other = "fractal_ifs.engines.choice.StackedEngine"
    monkeypatch.setattr(other, lambda *given, **keys: (made.append(keys["graphs"]), StackedEngine(*given, **keys))[1])
    [run] = trained([small(engine="auto", **keys)])
    assert run.record()["engine"] == "cuda"
    assert made == [False]  # capturing one would take longer than these steps


def test_a_sweep_from_the_command_line(emulated, command, tmp_path):
    words = ["curve=1,4", "width=5,9", "depth=2", "steps=60", "eval_every=20", "logger=none", "sweep=s", "workers=1"]
    words += ["data.train_size=500", "data.test_size=50", "engine=cuda"]
    assert command("-m", *words).status == 0
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("multirun/s/*/result.json"))]
    assert [record["engine"] for record in records] == ["cuda"] * 4
    assert {record["native_build"] for record in records} == {"C++"}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert command("-m", *words).status == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == before


def test_cuda_is_chosen_on_a_gpu_where_it_applies(emulated):
    for config, engine in (
        (small(engine="cuda").on("gpu"), "cuda"),
        (small(engine="cuda", width=200).on("gpu"), "torch"),
        (small().on("gpu"), "cuda"),
        (small(width=200).on("gpu"), "torch"),
        (small(training="layerwise").on("gpu"), "torch"),
        (small(engine="torch").on("gpu"), "torch"),
        (small(), "native" if "native" in ENGINES else "torch"),
    ):
        assert choose(config).engine == engine


def test_it_is_saturated_by_whole_turns(emulated, monkeypatch):
    """At least four runs for each of two multiprocessors; each program counts for its share of one."""
    engine = cuda.CudaEngine(lambda: pytest.fail("not needed"))
    runs = {width: Run(small(width=width, depth=5, **emulated), None, "cpu") for width in (10, 20, 50)}
    assert {width: engine.device.blocks(MLPProgram.of(run.config, 2)) for width, run in runs.items()} == {
        10: 5,
        20: 4,
        50: 1,
    }
    for counts, enough in (
        ({10: 10}, True),
        ({10: 9}, False),
        ({20: 8}, True),
        ({50: 8}, True),
        ({50: 7}, False),
        ({10: 5, 20: 4}, True),
        ({10: 5, 20: 3}, False),
    ):
        assert engine.saturated([runs[width] for width, n in counts.items() for _ in range(n)], 99) == enough, counts
    monkeypatch.setattr(type(engine.device), "blocks", lambda *given: 3)  # as a driver may say
    assert engine.saturated([runs[20]] * 12, 99)
    assert not engine.saturated([runs[20]] * 11, 99)


# --- its memory and its code


def test_layouts_fit_where_the_documentation_says():
    """60 units at depth 5 and batches of 100 in 227 KiB. No two parts of shared memory overlap."""
    shape = PLAIN._replace(depth=5)
    fitting = {depth: _widest(shape._replace(depth=depth), 227) for depth in (2, 5, 8)} | {"A100": _widest(shape, 163)}
    assert fitting == {2: 124, 5: 60, 8: 44, "A100": 44}
    for width, depth, batch, clips in itertools.product((1, 10, 31, 60), (1, 3, 8), (1, 50, 128), (False, True)):
        layout = shape._replace(width=width, depth=depth, batch=batch, clips=clips).layout()
        names = MLPLayout._fields[MLPLayout._fields.index("weights") :]
        places = [getattr(layout, name) for name in names]
        assert places == sorted(places)
        assert all(place % 4 == 0 for place in places)
        assert layout.threads % 128 == 0
        assert layout.threads >= layout.points
        assert layout.each * layout.threads >= (width + 1) * (width if depth > 1 else 1)
        assert layout.blocks * layout.threads <= 640
        assert layout.room >= layout.blocks or layout.room == 0
        assert layout.point_row % 8 == layout.weight_row % 8 == 4


def test_sums_have_more_parts_where_no_block_loses_its_room():
    """At width 20 a fifth part would leave three blocks of four."""
    found = {width: PLAIN._replace(width=width, depth=5).layout() for width in (10, 20, 60)}
    assert {width: (layout.split, layout.blocks) for width, layout in found.items()} == {
        10: (12, 5),
        20: (4, 4),
        60: (2, 1),
    }
    assert found[60].bytes <= 227 << 10
    assert cuda_kernel._of_parts(PLAIN._replace(width=20, depth=5), 5).room == 3


def _widest(shape: MLPProgram, kib: int) -> int:
    widths = range(1, cuda_kernel.MOST_WIDTH + 1)
    return max(width for width in widths if shape._replace(width=width).layout().bytes <= kib << 10)


def test_the_jobs_are_as_the_kernel_reads_them():
    source = PLAIN.source()
    for record, fields in (("Job", cuda.JOB.names), ("Test", cuda.TEST.names)):
        body = source.split(f"struct {record} {{")[1].split("};")[0]
        code = " ".join(line.split("//")[0] for line in body.splitlines())
        places = [code.index(f" {name}" if f" {name}" in code else f"*{name}") for name in fields or ()]
        assert places == sorted(places), record


def test_what_is_cached_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = []

    def make() -> bytes:
        made.append(b"code %d" % len(made))
        return made[-1]

    assert [cached("source", make) for _ in range(3)] == [b"code 0"] * 3
    assert cached("another", make) == b"code 1"
    for path in tmp_path.rglob("*.cubin"):
        path.write_bytes(path.read_bytes()[:-1])  # as a loss of power may leave it
    assert cached("source", make) == cached("source", make) == b"code 2"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # where there can't be a folder
    assert [cached("source", make) for _ in range(2)] == [b"code 3", b"code 4"]
    monkeypatch.setenv("XDG_CACHE_HOME", "nowhere/absolute")
    assert [cached("source", make) for _ in range(2)] == [b"code 5", b"code 6"]
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    cached("source", make)
    assert list((tmp_path / ".cache" / "fractal_ifs" / "kernels").iterdir())


@pytest.mark.parametrize(
    ("width", "isa"),
    [
        pytest.param(width, isa, marks=[] if (width, isa) in ((20, "sm_80"), (50, "sm_90")) else pytest.mark.slow)
        for width in (10, 20, 32, 50, 60)
        for isa in ("sm_80", "sm_90")
    ],
)
def test_it_compiles_for_gpus_and_its_registers_hardly_spill(width, isa):
    """By NVRTC, which needs no GPU: the very code that a GPU is given. Where there is one, the tests above need more.

    So all that a thread keeps is in registers, and a multiprocessor has those of as many blocks as the layout says.
    """
    try:
        compiler = cuda_device.nvrtc()
    except NoKernel as error:
        pytest.skip(str(error))
    shape = PLAIN._replace(width=width, depth=5)
    code = cuda_device.compiled(compiler, shape, isa)
    assert code[:4] == b"\x7fELF"
    registers, stack = _resources(code, "train")
    layout = shape.layout()
    block = f"{layout.threads} threads, {layout.bytes / 1024:.0f} KiB"
    print(f"width {width}, {isa}: {block}, {registers} registers, {stack} bytes of stack")
    assert -(-registers // 8) * 8 * layout.threads * layout.blocks <= 65_536
    assert stack <= 32


@pytest.mark.gpu
@pytest.mark.parametrize("width", [10, 20, 32, 50, 60])
def test_a_gpu_has_room_for_as_many_blocks_as_the_layout_says(width):
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a GPU with 228 KiB of shared memory in a multiprocessor")
    shape = PLAIN._replace(width=width, depth=5)
    kernel: Any = cuda_device.device().compile([shape])[shape]
    assert kernel.blocks == shape.layout().blocks
    assert kernel.resources("train").spilled <= 32


REGISTER_COUNT, STACK_SIZE = 0x2F, 0x12  # of the entries of .nv.info


def _resources(code: bytes, function: str) -> tuple[int, int]:
    """Registers of a thread, and bytes of its stack, from the ELF file that a cubin is."""
    begin = int.from_bytes(code[40:48], "little")  # of the section headers
    size, count, names = struct.unpack_from("<HHH", code, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", code, begin + size * number) for number in range(count)]

    def text(at: int) -> str:
        return code[at : code.index(b"\0", at)].decode()

    named = {text(headers[names][4] + header[0]): header for header in headers}
    symbols = headers[named[".symtab"][6]]
    registers, stacks = dict[str, int](), dict[str, int]()
    at, end = named[".nv.info"][4], named[".nv.info"][4] + named[".nv.info"][5]
    while at < end:
        form, kind, value = struct.unpack_from("<BBH", code, at)
        at += 4
        if form == 4:  # ``value`` bytes follow: here a function, and its number
            if kind in (REGISTER_COUNT, STACK_SIZE):
                symbol, number = struct.unpack_from("<II", code, at)
                name = struct.unpack_from("<I", code, named[".symtab"][4] + 24 * symbol)[0]
                (registers if kind == REGISTER_COUNT else stacks)[text(symbols[4] + name)] = number
            at += value
    return registers[function], stacks[function]


# --- the calls of the driver and of NVRTC


def test_a_kernel_is_compiled_once_for_all_processes_with_such_a_gpu(gpu, monkeypatch):
    compiled, count = cuda_device.compiled, []
    monkeypatch.setattr(cuda_device, "compiled", lambda *words: (count.append(words), compiled(*words))[1])
    for build, expected in (("NVRTC 13.0", 1), ("NVRTC 13.0", 1), ("NVRTC 13.1", 2), ("NVRTC 13.0", 2)):
        cuda_device.look_again()  # as another process
        device: Any = cuda_device.device()
        device.build = build
        [kernel] = device.compile([PLAIN]).values()
        assert not isinstance(kernel, NoKernel)
        assert len(count) == expected
    cuda_device.look_again()
    device = cuda_device.device()
    device.build, device.isa = "NVRTC 13.0", "sm_80"  # which this one can't compile for
    assert isinstance(device.compile([PLAIN])[PLAIN], NoKernel)
    assert len(count) == 3


def test_calls_reach_the_driver_as_they_are_meant(gpu, emulated, monkeypatch):
    """The same bits by way of the driver's and NVRTC's functions as without them."""
    config = small(engine="cuda", width=5)
    [expected] = trained([config])
    monkeypatch.delenv(VARIABLE)
    cuda_device.look_again()
    here = cuda_device.device()
    assert (here.isa, here.build, here.shared_bytes, here.multiprocessors) == ("sm_90", "NVRTC 13.7", 232_448, 3)
    monkeypatch.setattr("fractal_ifs.training.train.choose", lambda config: choose(config.on("gpu")))
    assert choose(config.on("gpu")).engine == "cuda"
    [run] = trained([config])
    assert torch.equal(run.params, expected.params)
    assert numbers(run) == numbers(expected)
    assert run.computed_by[:2] == ("sm_90", "NVRTC 13.7")
    program = MLPProgram.of(config, 2)
    kernel: Any = here.compile([program])[program]
    assert kernel.resources("train") == (96, 8, program.layout().bytes, 3)
    assert here.blocks(program) == 3
    assert here.blocks(PLAIN) == PLAIN.layout().blocks  # not compiled yet


def test_the_benchmark_compares_tiles(gpu, monkeypatch, capfd):
    """Each compiled with its own: of two runs of width 3, with tiles of three sizes, of which one has no kernel."""
    spec = importlib.util.spec_from_file_location("gpu", Path(__file__).parents[1] / "benchmarks" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sources, compiled = [], cuda_device.compiled

    def recorded(compiler, program, isa):
        sources.append(program.source())
        if "TILE_POINTS = 3" in sources[-1]:
            raise NoKernel("too large")
        return compiled(compiler, program, isa)

    monkeypatch.setattr(cuda_device, "compiled", recorded)
    monkeypatch.setattr(cuda_kernel, "tiles", cuda_kernel.tiles)
    for name, value in (("DEVICE", "cpu"), ("TILED", ((3, 2),)), ("SIZES", [(1, 2, 1), (1, 1, 1), (3, 1, 1)])):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "LONGEST", 1)
    module.tiles()
    cuda_kernel._layout.cache_clear()
    told = [line for line in capfd.readouterr().out.splitlines() if line.startswith("width 3")]
    assert [line.split("of ")[1].split(" quads")[0] for line in told] == ["(1, 1, 1)", "(1, 2, 1)", "(3, 1, 1)"]
    assert all("96 registers, 8 bytes of stack" in line for line in told[:2])
    assert told[2].endswith("not measured")
    assert sorted(source.count("TILE_UNITS = 2") for source in sources) == [0, 0, 1]


def test_what_the_driver_refuses_is_told_in_a_line(gpu, monkeypatch):
    for name, text in (
        ("cuInit", "cuInit: unknown error"),
        ("cuDeviceGet", "cuDeviceGet: unknown error"),
    ):
        monkeypatch.setenv("FAKE_CUDA", name)
        cuda_device.look_again()
        assert cuda_device.unfit(PLAIN, "gpu") == f"the cuda engine can't run: {text}"
    for name, text in (
        ("nvrtcCompileProgram", "the kernel of width 8 doesn't compile: kernel.cu(7): error: no luck"),
        ("cuModuleLoadData", "cuModuleLoadData: unknown error"),
        (
            "cuOccupancyMaxActiveBlocksPerMultiprocessor",
            "cuOccupancyMaxActiveBlocksPerMultiprocessor: unknown error",
        ),
        ("cuLaunchKernel", "cuLaunchKernel: unknown error"),
    ):
        monkeypatch.setenv("FAKE_CUDA", name)
        cuda_device.look_again()
        assert cuda_device.unfit(PLAIN, "gpu") is None
        tests = torch.from_numpy(np.zeros(1, cuda.TEST).view(np.uint8))
        found: Any = cuda_device.device().compile([PLAIN])[PLAIN]
        if name == "cuLaunchKernel":
            with pytest.raises(NoKernel, match=text):
                found("measure", ctypes.c_void_p(tests.data_ptr()), 0)
        else:
            assert str(found) == text
    monkeypatch.delenv("FAKE_CUDA")
    monkeypatch.setenv("FAKE_OLD", "1")
    cuda_device.look_again()
    assert "compute capability 7.0, at least 8.0 is needed" in str(cuda_device.unfit(PLAIN, "gpu"))

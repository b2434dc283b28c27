"""Training: what one run computes, alone or among others, interrupted or not, on either engine."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import changed, read_checkpoint, small
from torch import nn

from fractal_ifs.config.compose import compose
from fractal_ifs.config.run import Job
from fractal_ifs.data import seeds
from fractal_ifs.engines import cpp as native
from fractal_ifs.engines import fusing
from fractal_ifs.engines import native as native_engine
from fractal_ifs.engines import stack as engine_torch
from fractal_ifs.engines.stacked import StackedEngine
from fractal_ifs.networks.mlp import MLP
from fractal_ifs.runs import records
from fractal_ifs.runs.build import build_network
from fractal_ifs.runs.layerwise import LayerwiseRun
from fractal_ifs.runs.load import load
from fractal_ifs.runs.longer import with_sources
from fractal_ifs.runs.records import Status
from fractal_ifs.runs.run import Run
from fractal_ifs.training import rounds as rounds_module
from fractal_ifs.training.train import train

try:
    native.isa()
    ENGINES = ("torch", "native")
except native.Unavailable:
    ENGINES = ("torch",)

# Different in all that may differ within a stack.
PARTNERS = [
    {"fractal": "vicsek", "curve": 1, "seed": 0, "lr": 1e-3},
    {"fractal": "cantor2d", "curve": 4, "seed": 1, "lr": 5e-3},
    {"fractal": "sierpinsky", "curve": 6, "seed": 2, "lr": 2e-4},
    {"fractal": "vicsek", "curve": 1, "seed": 0, "lr": 1e-2},  # shares the points of the first
]


def trained(configs, stack=0, directories=None, report=None) -> Any:
    jobs = [Job(c, None if directories is None else d) for c, d in zip(configs, directories or configs, strict=True)]
    return train(with_sources(jobs), threads=2, stack=stack, report=report)


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def numbers(run):
    """The history without its times."""
    return [(row.step, *row.numbers[2:]) for row in run.history]


def plain_loop(config, steps):
    """The reference, with nothing of the engines: a module, torch's own optimizer, the stated order of the batches."""
    run = Run(config, None)  # for its data and its initial network
    optimizer = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[config.optimizer.name](
        run.model.parameters(), lr=config.lr
    )
    x, y, b = run.data.x_train, run.data.y_train, config.batch_size
    epoch_steps = len(y) // b
    total = 0.0
    for step in range(steps):
        order = torch.from_numpy(seeds.permutation(run.shuffle_seed, step // epoch_steps, len(y)))
        row = order[step % epoch_steps * b : (step % epoch_steps + 1) * b]
        margin = y[row] * run.model(x[row])
        loss = {
            "hinge": lambda m: torch.clamp(1 - m, min=0).mean(),
            "logistic": lambda m: torch.log1p(torch.exp(-m)).mean(),
            "squared": lambda m: ((1 - m) ** 2).mean(),  # (y - f)^2 with y = +-1
        }[config.loss.name](margin)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    vector = torch.nn.utils.parameters_to_vector(run.model.parameters()).detach()
    return vector, total / steps


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "keys",
    [{}, {"loss": "logistic"}, {"loss": "squared"}, {"optimizer": "sgd", "lr": 0.05}, {"model__sum_last": True}],
    ids=str,
)
def test_a_run_equals_a_plain_loop(engine, keys):
    config = small(fractal="vicsek", engine=engine, **{"eval_every": 100, **keys})
    [run] = trained([config])
    params, loss = plain_loop(config, 100)
    assert relative(run.params, params) <= 1e-5
    assert run.history[-1].train_loss == pytest.approx(loss, rel=1e-5)  # mean of batches since the last row
    assert relative(run.params, Run(config, None).params) > 1e-2  # it did move


@pytest.mark.parametrize("engine", ENGINES)
def test_partners_change_nothing(engine):
    configs = [small(engine=engine, **keys) for keys in PARTNERS]
    together = trained(configs, stack=4)
    for config, run in zip(configs, together, strict=True):
        [alone] = trained([config])
        same(run, alone)
        assert run.step == 100


@pytest.mark.parametrize("engine", ENGINES)
def test_every_position_in_a_stack_computes_the_same_bits(engine):
    configs = [small(engine=engine, **keys) for keys in PARTNERS]
    forward, backward = trained(configs, stack=4), trained(configs[::-1], stack=4)[::-1]
    for a, b in zip(forward, backward, strict=True):
        assert torch.equal(a.params, b.params)
        assert numbers(a) == numbers(b)


def test_a_narrow_stack_admits_runs_as_others_end():
    """Runs of different lengths and evaluation steps pass through a stack of two, each trained to its own end."""
    configs = [
        small(engine="torch", seed=seed, steps=steps, eval_every=every)
        for seed, (steps, every) in enumerate([(100, 50), (30, 7), (64, 64), (10, 100), (95, 10)])
    ]
    for config, run in zip(configs, trained(configs, stack=2), strict=True):
        [alone] = trained([config])
        same(run, alone)
        assert run.step == config.steps
        assert run.history[-1].step == config.steps  # the end is always measured


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("every", [1, 50])
def test_a_partner_that_diverges_changes_nothing(engine, every):
    calm, wild = small(engine=engine, eval_every=every), small(engine=engine, eval_every=every, lr=1e30, seed=5)
    [expected] = trained([calm])
    run, diverged = trained([calm, wild], stack=2)
    assert torch.equal(run.params, expected.params)
    assert torch.isfinite(run.params).all()
    assert run.status == "finished"
    record = diverged.record()
    assert record["status"] == "diverged"
    assert record["steps"] < 100 or every == 50
    assert 0 <= record["best_test_acc"] <= 1
    kept = [row for row in diverged.history if row.finite]
    assert record["best_test_acc"] == max((row.test_acc for row in kept), default=0.0)


def test_the_best_so_far_survives_divergence():
    run = Run(small(), None)
    for step, (accuracy, loss) in enumerate([(0.6, 0.9), (0.8, 0.5), (0.7, 0.6)], 1):
        run.step = 50 * step
        run.advanced(50, 50 * loss, 0.1)
        run.evaluated(accuracy, loss)
    run.status, run.step = Status.RUNNING, 200
    run.advanced(50, math.nan, 0.1)
    run.evaluated(0.99, 0.1)  # an accuracy of a network that is NaN in training is not a result
    assert (run.status, run.best_test_acc, run.best_step) == ("diverged", 0.8, 100)


@pytest.mark.skipif("native" not in ENGINES, reason="no compiled engine here")
@pytest.mark.parametrize("keys", PARTNERS[:3], ids=str)
def test_the_engines_agree_through_the_whole_of_training(keys):
    first, second = (small(engine=engine, width=10, **keys) for engine in ENGINES)
    [a], [b] = trained([first]), trained([second])
    assert relative(a.params, b.params) <= 1e-4
    assert [row.step for row in a.history] == [row.step for row in b.history]
    for left, right in zip(a.history, b.history, strict=True):
        assert left.test_acc == pytest.approx(right.test_acc, abs=2 / 300)  # a point or two on the boundary
        assert left.numbers[2:4] == pytest.approx(right.numbers[2:4], rel=1e-4)
    assert (a.record()["engine"], b.record()["engine"]) == ENGINES


def test_training_learns_what_can_be_learned():
    config = small(fractal="cantor2d", fractal__depth=1, width=20, steps=3000, eval_every=1000, lr=5e-3, engine="auto")
    [run] = trained([config])
    assert run.best_test_acc > 0.85  # four squares in a square; chance is 1/2
    f = run.model(run.data.x_test)
    assert run.history[-1].test_acc == pytest.approx(((run.data.y_test * f) > 0).float().mean().item(), abs=1e-6)


@pytest.mark.parametrize(
    "keys",
    [
        *({"model__init": init} for init in ("paper", "theory", "pytorch")),
        {"training": "layerwise"},
        {"model__norm": "layer"},
        {"model": "resmlp"},
    ],
)
def test_double_precision_begins_with_the_same_network(keys):
    kind = LayerwiseRun if "training" in keys else Run
    single, double = (kind(small(**keys, trainer__precision=p), None) for p in ("32-true", "64-true"))
    assert double.params.dtype == torch.float64
    assert torch.equal(double.params, single.params.double())
    if isinstance(single, LayerwiseRun) and isinstance(double, LayerwiseRun):  # whose readouts are another stream
        for run in (single, double):
            run.begin_layer(1)
        assert torch.equal(double.params, single.params.double())


def test_a_cnn_in_double_precision_begins_with_the_same_network():
    keys = {"data": "cifar10", "model": "cnn", "width": 3, "depth": 2}
    single, double = (build_network(compose(**keys, trainer__precision=p), 3) for p in ("32-true", "64-true"))
    for here, there in zip(double.parameters(), single.parameters(), strict=True):
        assert here.dtype == torch.float64
        assert torch.equal(here, there.double())


def test_double_precision_can_still_draw_what_it_drew_before():
    """The weights of runs that had no trainer.draw: drawn in double, and others than those of single precision."""
    config = small(trainer__precision="64-true", trainer__draw="precision")
    before = MLP(2, config.width, config.depth, generator=seeds.generator(config.seed, "init"), dtype=torch.float64)
    first = next(iter(build_network(config, 2).parameters()))
    assert torch.equal(first, next(iter(before.parameters())))
    other = next(iter(build_network(small(trainer__precision="64-true"), 2).parameters()))
    assert (first != other).all()


@pytest.mark.parametrize(
    ("keys", "loss"),
    [
        ({"model__activation": "tanh"}, 1.0445802055291817),
        ({"model__norm": "layer"}, 1.102535293847775),
        ({"model": "resmlp"}, 1.168648555710098),
    ],
)
def test_networks_besides_the_papers_can_be_drawn_as_before_too(keys, loss):
    """The losses are of runs from before there was trainer.draw, after a step that moves nothing."""
    keys |= {"width": 4, "depth": 2, "lr": 1e-30, "batch_size": 10, "data__train_size": 200, "data__test_size": 100}
    config = compose(**keys, steps=1, eval_every=1, logger="none", trainer__precision="64-true")
    old = changed(config, "trainer.draw", "precision")
    [now], [before] = trained([config]), trained([old])
    assert before.history[0].test_loss == pytest.approx(loss, rel=1e-9)
    assert now.history[0].test_loss != pytest.approx(loss, rel=1e-3)
    torch.set_default_dtype(torch.float64)  # as where Lightning calls
    try:
        single, double = Run(changed(config, "trainer.precision", "32-true"), None), Run(config, None)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(double.params, single.params.double())


def test_mixed_precision_is_lightnings(command):
    """Products in bfloat16, weights and moments in float32, by the torch engine; and the sweep's table says so."""
    [exact], [mixed] = (trained([small(**keys)]) for keys in ({}, {"trainer.precision": "bf16-mixed"}))
    assert mixed.computed_by.engine == "torch"
    assert {t.dtype for t in (mixed.params, mixed.exp_avg, mixed.exp_avg_sq)} == {torch.float32}
    assert 1e-6 < relative(mixed.params, exact.params) < 0.05
    assert mixed.record()["precision"] == "bf16-mixed"
    keys = ["curve=1,4", "width=4", "depth=1", "steps=4", "eval_every=4", "data.train_size=200", "data.test_size=50"]
    ended = command("-m", *keys, "logger=csv", "trainer.precision=bf16-mixed")
    assert "precision bf16-mixed" in ended.out
    assert "precision" not in command("-m", *keys, "logger=csv").out


def test_a_stack_that_memory_is_too_small_for_is_halved(monkeypatch, caplog):
    """Memory runs out in the middle: nothing is done twice, nothing is left out, and it is said."""
    configs = [small(engine="torch", seed=seed, eval_every=30) for seed in range(5)]
    straight = trained(configs, stack=5)
    mlp, calls = fusing.mlp, []

    def hungry(weights, x, *rest):
        calls.append(len(x))
        if len(calls) > 40 and len(x) > 1:
            raise torch.OutOfMemoryError("no room for the activations")
        return mlp(weights, x, *rest)

    monkeypatch.setattr(fusing, "mlp", hungry)
    for halved, expected in zip(trained(configs, stack=5), straight, strict=True):
        same(halved, expected)
    assert calls[:43] == [5] * 41 + [2, 1]  # 5 -> 2 fails -> 1
    assert calls.count(1) == 5 * 60
    assert ["going on with 2" in m or "going on with 1" in m for m in caplog.messages] == [True, True]


@pytest.mark.slow
def test_a_real_end_of_memory_halves_the_stack(tmp_path):
    """Under an address space that the activations of 16 networks exceed."""
    script = """
import resource, sys
from pathlib import Path
from fractal_ifs.config.run import Job
from fractal_ifs.config.compose import compose
from fractal_ifs.training import rounds as rounds_module
from fractal_ifs.training.train import train

keys = dict(engine="torch", depth=3, width=100, steps=2, eval_every=2, batch_size=4000, logger="csv")
keys |= {"data.train_size": 4000, "data.test_size": 10}
job = lambda seed: Job(compose(**keys, seed=seed), Path(sys.argv[1], str(seed)))
train([job(99)])  # all that is loaded late is loaded
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), used + (100 << 20)))
print([str(run.status) for run in train([job(seed) for seed in range(16)], stack=16)])
"""
    commands = ([sys.executable, "-c", script, tmp_path / str(attempt)] for attempt in range(5))
    tried = (subprocess.run(command, capture_output=True, text=True, timeout=300) for command in commands)
    # The C library aborts with "cannot allocate memory for thread-local data" where a thread begins just then.
    done = next(each for each in tried if "thread-local data" not in each.stderr)
    assert done.stdout.strip() == str(["finished"] * 16), done.stderr
    assert "out of memory with 16 networks in a stack: going on with 8" in done.stderr


@pytest.mark.filterwarnings("ignore")  # those of torch.compile
@pytest.mark.slow  # it takes half a minute
def test_a_compiled_step_computes_the_same():
    [plain], [compiled] = trained([small(engine="torch")]), trained([small(**{"trainer.compile": "true"})])
    assert relative(compiled.params, plain.params) <= 1e-5
    assert compiled.record()["fingerprint"] != plain.record()["fingerprint"]


# --- interrupted and gone on


class Stop:
    """Interrupts after some rounds, as Ctrl-C between two of them does."""

    def __init__(self, rounds):
        self.left = rounds

    def __call__(self, training):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def same(resumed, straight):
    for name in ("params", "exp_avg", "exp_avg_sq", "best_params", "measured"):  # at last: its average
        one, other = getattr(resumed, name), getattr(straight, name)  # no best network where all diverged at once
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    assert repr(numbers(resumed)) == repr(numbers(straight))  # of one that has diverged, NaN
    timeless = ({k: v for k, v in run.record().items() if k != "seconds"} for run in (resumed, straight))
    assert next(timeless) == next(timeless)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_interrupted_set_goes_on_to_the_same_bits(engine, tmp_path):
    configs = [small(engine=engine, eval_every=20, **keys) for keys in PARTNERS[:3]]
    straight = trained(configs, stack=3)
    directories = [tmp_path / str(number) for number in range(3)]
    for rounds in (2, 1):
        with pytest.raises(KeyboardInterrupt):
            trained(configs, 3, directories, Stop(rounds))
    for directory in directories:
        record = records.read_record(directory)
        assert record is not None
        assert (record["status"], record["steps"]) == ("interrupted", 60)
        assert read_checkpoint(directory)["step"] == 60  # pyright: ignore[reportOptionalSubscript]
    for resumed, expected in zip(trained(configs, 3, directories), straight, strict=True):
        same(resumed, expected)
        written = load(resumed.directory)
        assert written.record["status"] == "finished"
        assert list(written.history["step"]) == [20, 40, 60, 80, 100]
        assert written.history["test_acc"].tolist() == [row.test_acc for row in expected.history]
        x = expected.data.x_test
        torch.testing.assert_close(written.model(x), expected.model(x), rtol=0, atol=0)


def goes_on_after_ctrl_c(config, directory):
    """To the same bits; of the native engine but for the last digits of a mean loss whose sum was cut in two."""
    with pytest.raises(KeyboardInterrupt):
        trained([config], 0, [directory])
    record = records.read_record(directory)
    assert record is not None
    assert record["status"] == "interrupted"
    assert 0 < record["steps"] < config.steps
    [resumed], [straight] = trained([config], 0, [directory]), trained([config])
    if config.engine == "torch":
        same(resumed, straight)
    for name in ("params", "exp_avg", "exp_avg_sq", "best_params"):
        assert torch.equal(getattr(resumed, name), getattr(straight, name))
    assert [row.numbers[::4] for row in resumed.history] == [row.numbers[::4] for row in straight.history]
    assert [row.train_loss for row in resumed.history] == pytest.approx(
        [row.train_loss for row in straight.history], rel=1e-9
    )
    return record["steps"]


def test_ctrl_c_within_a_step_of_the_torch_engine(tmp_path, monkeypatch):
    """The state that is kept is that after a whole number of steps."""
    losses, calls = engine_torch.losses, []

    def signalled(*arguments):
        calls.append(1)
        if len(calls) == 73:
            signal.raise_signal(signal.SIGINT)
        return losses(*arguments)

    monkeypatch.setattr(engine_torch, "losses", signalled)
    assert goes_on_after_ctrl_c(small(engine="torch", eval_every=60, measures=()), tmp_path) in (60, 72, 73)


@pytest.mark.skipif("native" not in ENGINES, reason="no compiled engine here")
def test_ctrl_c_within_the_compiled_engine(tmp_path, monkeypatch):
    """A real signal, wherever it strikes."""
    advance, timers = native.advance, []

    def timed(*arguments):
        if not timers:
            timers.append(threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)))
            timers[0].start()
        advance(*arguments)

    monkeypatch.setattr(native, "advance", timed)
    goes_on_after_ctrl_c(small(engine="native", width=32, depth=5, steps=20_000, eval_every=20_000), tmp_path)
    timers[0].join()


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_an_interrupted_evaluation_is_made_up_for(tmp_path, monkeypatch, precision):
    """Ctrl-C between the steps and the measurement they end with: the history must not miss that row."""
    config = small(engine="torch", eval_every=20, trainer__precision=precision)
    [straight] = trained([config])
    evaluate, calls = StackedEngine.evaluate, []

    def interrupted(self, runs, sets):
        calls.append(len(runs))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(self, runs, sets)

    monkeypatch.setattr(StackedEngine, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained([config], 0, [tmp_path])
    [resumed] = trained([config], 0, [tmp_path])
    same(resumed, straight)


def test_a_run_whose_start_fails_leaves_its_record_and_the_others_finish(tmp_path, monkeypatch):
    init = Run.__init__

    def picky(self, config, *rest):
        if config.seed == 1:
            raise MemoryError("no room")
        init(self, config, *rest)

    monkeypatch.setattr(Run, "__init__", picky)
    directories = [tmp_path / str(seed) for seed in range(3)]
    outcomes = trained([small(seed=seed) for seed in range(3)], 0, directories)
    assert isinstance(outcomes[1], MemoryError)
    assert [outcomes[n].record()["status"] for n in (0, 2)] == ["finished", "finished"]
    record = records.read_record(directories[1])
    assert record is not None
    assert (record["status"], record["error"], record["seed"]) == ("failed", "MemoryError: no room", 1)
    assert "Traceback" in (directories[1] / "train.log").read_text()


def test_a_run_that_cannot_begin_holds_no_lock(tmp_path, monkeypatch):
    """The same process may try again, as a notebook does."""

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_begun", full)
        [error] = trained([small()], 0, [tmp_path])
    assert isinstance(error, OSError)
    [again] = trained([small()], 0, [tmp_path])
    assert isinstance(again, Run)
    assert again.status == "finished"


def test_an_interrupted_run_that_cannot_be_saved_holds_no_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", full)
        patch.setattr("fractal_ifs.training.rounds.SweepRounds._round", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            trained([small()], 0, [tmp_path])
    [again] = trained([small()], 0, [tmp_path])
    assert isinstance(again, Run)


# --- the network, the order of the batches, the data


@pytest.mark.parametrize(("d", "width", "depth"), [(1, 1, 1), (2, 20, 5), (3, 7, 2)])
def test_the_number_of_parameters(d, width, depth):
    model = MLP(d, width, depth)
    count = sum(p.numel() for p in model.parameters())
    assert count == d * width + width + (depth - 1) * (width**2 + width) + width + 1
    assert model(torch.zeros(4, 6, d)).shape == (4, 6)


def linears(model) -> list[torch.nn.Linear]:
    return [*model.hidden, model.readout]


def test_the_papers_initialisation():
    model = MLP(50, 400, 3, generator=torch.Generator().manual_seed(1))
    for layer in linears(model):
        std = 1 / math.sqrt(layer.in_features)
        assert (layer.bias == 0.1).all()
        assert layer.weight.abs().max() <= 2 * std
        if layer.weight.numel() > 10_000:
            # a normal cut at 2 sigma has 0.8796 of its standard deviation
            assert layer.weight.std().item() == pytest.approx(0.8796 * std, rel=0.02)
            assert layer.weight.mean().abs() < 0.03 * std
            assert layer.weight.abs().max() > 1.98 * std


def test_the_theorys_and_pytorchs_initialisations():
    theory, usual = (MLP(9, 300, 2, init, generator=torch.Generator().manual_seed(2)) for init in ("theory", "pytorch"))
    for layer in linears(theory):
        assert (layer.bias == 0.5).all()
        assert layer.weight.abs().max() <= 0.5 / layer.in_features
    assert linears(theory)[1].weight.std().item() == pytest.approx(1 / 300 / math.sqrt(12), rel=0.02)
    for layer in linears(usual):
        bound = 1 / math.sqrt(layer.in_features)
        assert layer.weight.abs().max() <= bound
        assert layer.bias.abs().max() <= bound
    assert linears(usual)[1].weight.std().item() == pytest.approx(2 / math.sqrt(300 * 12), rel=0.02)


def test_the_network_is_the_formula_and_sum_last_reads_all_hidden_layers():
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sum_last in (False, True):
        model = MLP(2, 6, 4, sum_last=sum_last, dtype=torch.float64)
        h, outputs = x, []
        for j, layer in enumerate(linears(model)[:-1]):
            source = torch.stack(outputs).sum(0) if sum_last and j == 3 else h
            h = torch.relu(source @ layer.weight.T + layer.bias)
            outputs.append(h)
        expected = torch.nn.functional.linear(h, *model.readout.parameters())[:, 0]
        torch.testing.assert_close(model(x), expected)
    for depth, differs in ((1, False), (2, False), (3, True)):
        a, b = MLP(2, 6, depth, dtype=torch.float64), MLP(2, 6, depth, sum_last=True, dtype=torch.float64)
        assert torch.equal(a(x), b(x)) != differs


def test_networks_draw_from_their_own_generator():
    before = torch.random.get_rng_state()
    same_seed = [MLP(2, 5, 2, generator=seeds.generator(3, "init")) for _ in range(2)]
    other = MLP(2, 5, 2, generator=seeds.generator(4, "init"))
    vectors = [torch.nn.utils.parameters_to_vector(m.parameters()) for m in (*same_seed, other)]
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("n", [1, 2, 100, 1501])
def test_epochs_are_permutations(n):
    orders = [seeds.permutation(seed, epoch, n) for seed in (0, 1, 2**63 - 1) for epoch in (0, 1, 1000)]
    for order in orders:
        assert sorted(order) == list(range(n))
    if n >= 100:
        assert len({order.tobytes() for order in orders}) == len(orders)
        # fixed points of a random permutation: 1 on average; 9 of them have 9 +- 3
        assert sum(int((order == np.arange(n)).sum()) for order in orders) < 9 + 5 * 3


def test_places_in_an_epoch_are_uniform():
    """Chi-square of where index 0 lands, over 2,000 epochs and 10 places."""
    places = [int(np.flatnonzero(seeds.permutation(7, epoch, 50) == 0)[0]) // 5 for epoch in range(2000)]
    counts = np.bincount(places, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # 0.999 quantile, 9 degrees of freedom


def test_streams_of_a_seed_are_distinct():
    streams = {seeds.stream(seed, purpose) for seed in range(50) for purpose in ("train", "test", "init", "shuffle")}
    assert len(streams) == 200
    assert all(0 <= s < 2**63 for s in streams)


def test_the_data_module_under_a_plain_lightning_loop():
    import warnings

    import pytorch_lightning as pl

    from fractal_ifs import FractalDataModule

    config = small(fractal="cantor2d", fractal__depth=1)

    class Plain(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.right, self.seen = MLP(2, 20, 2), 0.0, 0

        def training_step(self, batch, _):
            x, y = batch
            assert x.shape == (100, 2)
            return torch.relu(1 - y * self.net(x)).mean()

        def validation_step(self, batch, _):
            x, y = batch
            self.right, self.seen = float((y * self.net(x) > 0).float().mean()), len(y)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=5e-3)

    data = FractalDataModule(config.fractal, config.curve, config.data, seed=0)
    module = Plain()
    with warnings.catch_warnings():
        # Lightning advises workers for loaders, and uses a name that PyTorch has deprecated
        warnings.filterwarnings("ignore", message=".*does not have many workers.*|.*treespec.*|.*logging interval.*")
        options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        pl.Trainer(accelerator="cpu", max_epochs=20, enable_model_summary=False, **options).fit(module, data)
    assert module.seen == 300
    assert module.right > 0.75
    run = Run(config, None)
    assert data.points is not None
    assert torch.equal(data.points.x_train, run.data.x_train)  # the very points of the platform's own training


def test_data_is_shared_by_runs_in_memory_and_forgotten_after():
    import gc
    import weakref

    a, b = Run(small(seed=8, lr=1e-3), None), Run(small(seed=8, lr=0.7), None)
    assert a.data is b.data
    assert Run(small(seed=9), None).data is not a.data
    assert not torch.equal(a.data.x_train[:300], a.data.x_test)
    data = weakref.ref(a.data)
    del a, b
    gc.collect()
    assert data() is None


def test_seeds_share_the_tables_of_their_distribution(monkeypatch):
    from fractal_ifs.data import points as data
    from fractal_ifs.fractals import distribution

    made = []
    sampler = distribution.sampler
    monkeypatch.setattr(distribution, "sampler", lambda *keys: (made.append(keys), sampler(*keys))[1])
    data._law.cache_clear()
    first, second = (Run(small(seed=seed), None).data for seed in (0, 1))
    assert len(made) == 1
    assert not torch.equal(first.x_train, second.x_train)
    data._law.cache_clear()
    assert torch.equal(Run(small(seed=1), None).data.x_train, second.x_train)
    for keys in ({"curve": 2}, {"fractal__depth": 2}, {"data__margin": 1e-3}):
        assert not torch.equal(Run(small(**keys), None).data.x_train, first.x_train)


def test_runs_that_end_together_wait_for_the_disk_together(tmp_path, monkeypatch):
    """Each waits three times; with nobody to wait with, the barrier breaks."""
    together = threading.Barrier(rounds_module.SAVING, timeout=300)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (together.wait(), fsync(file)))
    jobs = [
        Job(small(seed=seed, steps=20, eval_every=20), tmp_path / str(seed)) for seed in range(rounds_module.SAVING)
    ]
    assert [run.status for run in train(jobs)] == [Status.FINISHED] * rounds_module.SAVING  # pyright: ignore


def test_checkpoints_of_many_runs_wait_for_the_disk_together_and_a_signal_ends_that(tmp_path, monkeypatch):
    """Their numbers are those of runs that were never saved on the way; those that a signal cuts off are saved then."""
    jobs = [Job(small(seed=seed, steps=60, eval_every=20), tmp_path / str(seed)) for seed in range(9)]
    together, begun, saved = threading.Barrier(rounds_module.SAVING, timeout=300), itertools.count(), list[Run]()
    save = Run.save

    def counted(run):
        if not run.done and next(begun) < rounds_module.SAVING:
            together.wait()
        save(run)
        saved.append(run)
        if len(saved) == rounds_module.SAVING:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(rounds_module, "CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(Run, "save", counted)
    with pytest.raises(KeyboardInterrupt):
        train(jobs)
    records = [json.loads((tmp_path / str(seed) / "result.json").read_text()) for seed in range(9)]
    assert {record["steps"] for record in records} == {20}
    monkeypatch.undo()
    for again, job in zip(train(jobs), jobs, strict=True):
        [straight] = train([Job(job.config, None)])
        same(again, straight)


def test_where_no_thread_can_be_started_all_runs_are_saved(tmp_path, monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    jobs = [Job(small(seed=seed, steps=20, eval_every=20), tmp_path / str(seed)) for seed in range(6)]
    monkeypatch.setattr(rounds_module.threading.Thread, "start", start)
    assert {run.status for run in train(jobs)} == {Status.FINISHED}  # pyright: ignore
    assert len(list(tmp_path.glob("*/result.json"))) == 6


@pytest.mark.skipif("native" not in ENGINES, reason="the native engine isn't built")
@pytest.mark.parametrize(
    ("threads", "ended"),
    [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 3, 5])],  # three share two threads
)
def test_large_networks_end_one_after_the_other(monkeypatch, threads, ended):
    """Where a round takes seconds, as many train as there are cores, and one more of several, until few are left."""
    configs = [small(seed=seed) for seed in range(5)]
    together = trained(configs)
    monkeypatch.setattr(native_engine, "FLOPS_PER_SECOND", 1.0)
    seen = []
    outcomes: Any = train(
        [Job(c, None) for c in configs], threads, report=lambda module: seen.append(len(module.ended))
    )
    assert sorted(set(seen)) == ended
    for run, other in zip(outcomes, together, strict=True):
        assert torch.equal(run.params, other.params)
        assert numbers(run) == numbers(other)


@pytest.mark.skipif("native" not in ENGINES, reason="the native engine isn't built")
@pytest.mark.parametrize(
    ("widths", "waiting", "full"),
    [
        ([200], 9, False),
        ([200, 200], 9, False),  # perhaps one is done with its round long before the other
        ([200] * 3, 9, True),
        ([200] * 3, 0, False),  # the end: all train
        ([100] * 3, 9, True),
        ([50, 50], 9, False),
        ([50] * 4, 9, True),
        ([10] * 15, 9, False),
        ([10] * 16, 9, True),
        ([400] + [20] * 14, 9, False),
        ([400] + [20] * 15, 9, True),
    ],
)
def test_how_many_runs_two_cores_take(widths, waiting, full):
    runs: Any = [
        SimpleNamespace(
            params=nn.utils.parameters_to_vector(MLP(2, width, 5).parameters()),
            config=small(width=width, eval_every=10_000),
        )
        for width in widths
    ]
    assert native_engine.NativeEngine(2).saturated(runs, waiting) == full

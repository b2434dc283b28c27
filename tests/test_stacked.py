"""What the stacked engine does on a GPU. A CPU is in its place here, and with ``pytest -m gpu`` it is a GPU."""

import dataclasses
import gc
import logging
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import changed, small
from test_optimizers import OPTIMIZERS, SCHEDULES, tiny
from test_training import PARTNERS, Stop, numbers, relative, same, trained
from torch import nn

from fractal_ifs.config.model import parse_model
from fractal_ifs.data import seeds
from fractal_ifs.data.labelled import Labelled
from fractal_ifs.data.points import fractal_points
from fractal_ifs.engines import orders, stack, stacked
from fractal_ifs.engines.fusing import out_of_memory
from fractal_ifs.engines.graph import WARM, captured
from fractal_ifs.engines.losses import losses
from fractal_ifs.engines.stacked import StackedEngine
from fractal_ifs.runs.run import Run
from fractal_ifs.sweeps.worker import Worker

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:grad and param")  # of another layout, as in training


class Gpu(list[int]):
    """The sizes of the stacks whose steps have been captured."""

    def captured(self, works, state):
        self.extend(len(state[0]) for _ in works)
        return works


@pytest.fixture
def emulated(monkeypatch):
    """A CPU in the place of a GPU. A graph is the work that it would capture."""
    gpu = Gpu()
    for module in (orders, stack, stacked):
        monkeypatch.setattr(module, "on_gpu", lambda device: True)
    monkeypatch.setattr(stack, "captured", gpu.captured)
    monkeypatch.setattr(stacked, "room", lambda count, more: 1000)
    monkeypatch.setattr(stacked, "LEAST", 0)
    monkeypatch.setattr(stack, "GRAPH", 4)
    return gpu


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def keys(request, monkeypatch) -> dict[str, Any]:
    """The keys of a run that trains with CUDA graphs."""
    if request.param == "emulated":
        request.getfixturevalue("emulated")
        return {"engine": "torch"}
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    monkeypatch.setattr(stacked, "LEAST", 0)
    return {"engine": "torch", "trainer": "gpu"}


def close(run, expected):
    """A run as the same one on the CPU, but for the order of sums."""
    assert relative(run.params.cpu(), expected.params) <= 1e-5
    for row, other in zip(run.history, expected.history, strict=True):
        assert row.step == other.step
        assert row.test_acc == pytest.approx(other.test_acc, abs=1.5 / len(run.data.y_test))  # f may be round-off
        assert (row.train_loss, row.test_loss) == pytest.approx((other.train_loss, other.test_loss), rel=1e-4)
        assert row.measured == pytest.approx(other.measured, abs=0.01)


def test_runs_are_those_of_a_cpu(keys, monkeypatch):
    """Epochs of 15 steps are three graphs of 4 steps and three of one. Sets have other sizes in each run."""
    names = ("train_acc", "val_acc", "levels")
    tame = {"optimizer": "adam", "optimizer__eps": 1e-4}  # 1e-8 makes whole steps of gradients that are round-off
    configs = [small(**partner, **keys, **tame, measures=names, data__val_size=70) for partner in PARTNERS]
    there = trained(configs, stack=4)
    on_cpu = [changed(config, "trainer.accelerator", "cpu") for config in configs]
    monkeypatch.undo()
    for run, expected in zip(there, trained(on_cpu, stack=4), strict=True):
        close(run, expected)
        assert "acc_positive" in run.history[-1].measured


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_and_schedules_are_those_of_a_cpu(keys, name, monkeypatch):
    first = list(OPTIMIZERS).index(name)
    schedule = list(SCHEDULES.values())[first % len(SCHEDULES)]
    config = tiny(OPTIMIZERS[name], schedule, **keys)
    [there] = trained([config])
    monkeypatch.undo()
    close(there, trained([changed(config, "trainer.accelerator", "cpu")])[0])


def test_a_graph_does_several_steps(emulated, monkeypatch):
    done = []
    step = stack.Stack._step
    monkeypatch.setattr(stack.Stack, "_one", lambda *_: pytest.fail("a step by itself"))
    monkeypatch.setattr(stack.Stack, "_step", lambda self, row, *rest: (done.append(len(row)), step(self, row, *rest)))
    [run] = trained([small(engine="torch")])
    assert (run.step, done) == (100, [1] * 100)
    assert emulated == [1, 1]  # of 4 steps, of one


@pytest.mark.parametrize("interrupted", [1, 3])
def test_an_interrupted_set_goes_on_to_the_same_bits(keys, tmp_path, interrupted):
    configs = [small(**keys, eval_every=20, **partner) for partner in PARTNERS[:3]]
    straight = trained(configs, stack=3)
    directories = [tmp_path / str(number) for number in range(3)]
    with pytest.raises(KeyboardInterrupt):
        trained(configs, 3, directories, Stop(interrupted))
    for resumed, expected in zip(trained(configs, 3, directories), straight, strict=True):
        same(resumed, expected)


def test_a_signal_is_heeded_between_two_graphs(emulated):
    run = Run(small(engine="torch"), None)
    stop: list[int] = []
    runs = stack.Stack([run], graphs=True)
    graph = runs.graphs[4]

    def signalled(rows, columns):
        graph(rows, columns)
        stop.append(2)

    runs.graphs[4] = signalled
    runs.advance(15, stop)
    assert run.step == 4


def test_layers_are_those_of_a_cpu(keys, monkeypatch):
    tame = {"optimizer": "adam", "optimizer__eps": 1e-4, "training": "layerwise"}
    configs = [small(**keys, **tame, width=4, steps=30, eval_every=30, seed=seed) for seed in range(2)]
    there = trained(configs)
    monkeypatch.undo()
    for run, expected in zip(there, trained([changed(c, "trainer.accelerator", "cpu") for c in configs]), strict=True):
        close(run, expected)
        assert [row.step for row in run.history] == [30, 60, 90]


def test_networks_of_other_inputs_are_measured_apart(emulated):
    runs = [Run(small(fractal=fractal, seed=seed), None) for seed in range(2) for fractal in ("vicsek", "cantor")]
    sets = [Labelled(run.data.x_test, run.data.y_test) for run in runs]
    together = StackedEngine().evaluate(runs, sets)
    for run, there, found in zip(runs, sets, together, strict=True):
        [alone] = StackedEngine().evaluate([run], [there])
        assert found == pytest.approx(alone, rel=1e-5)
    assert len({found.loss for found in together}) == 4


def test_points_are_drawn_where_they_are_needed(monkeypatch):
    c = small()
    devices = []

    def sample(m, seed, balanced, device):
        devices.append(device)
        return torch.zeros(m, 2), torch.ones(m), torch.ones(m, dtype=torch.int64)

    monkeypatch.setattr("fractal_ifs.data.points._law", lambda *_: SimpleNamespace(sample=sample))
    fractal_points(c.fractal, c.curve, changed(c, "data.val_size", 7).data, 991, "meta")
    assert devices == ["meta"] * 3


@pytest.mark.gpu
@pytest.mark.parametrize("fractal", ["vicsek", "sierpinski_triangle", "pentaflake"])
def test_points_are_those_of_a_cpu(fractal):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    c = small(fractal=fractal)
    here, there = (fractal_points(c.fractal, c.curve, c.data, 0, device) for device in ("cpu", "cuda"))
    assert there.level_test is not None
    assert here.level_test is not None
    assert torch.equal(there.level_test.cpu(), here.level_test)
    torch.testing.assert_close(there.x_train.cpu(), here.x_train, rtol=0, atol=1e-6)


def test_orders_are_the_permutations_of_each_epoch(emulated, monkeypatch):
    """Whichever of them are there already."""
    monkeypatch.setattr(orders, "SORTED", 100)
    found = orders.Orders(CPU)
    keys = [(seed, epoch, n) for n in (30, 70, 31) for seed in (5, 2**62) for epoch in (0, 9)]
    for some in (keys, keys[::-2], keys[:1], [*keys, *keys], [(9, 0, 40)]):
        places = found.places(some)
        assert len(found.flat) == sum(key[2] for key in set(some)) == found.flat.untyped_storage().nbytes() / 4
        for place, key in zip(places, some, strict=True):
            assert found.flat[place : place + key[2]].tolist() == seeds.permutation(*key).tolist()


def test_places_go_beyond_32_bits(emulated):
    """Where a stack has many points: orders of a GPU are held in 32 bits."""
    runs = stack.Stack([Run(small(), None)])
    runs.first_row += 2**33
    assert runs.rows(2).min().item() >= 2**33


def test_runs_of_one_seed_share_an_order(monkeypatch):
    asked = []
    monkeypatch.setattr(orders, "permutation", lambda *key: (asked.append(key), seeds.permutation(*key))[1])
    runs = [Run(small(seed=seed), None) for seed in (0, 0, 1)]
    stack.Stack(runs).advance(16, [])
    assert len(asked) == 4  # of two seeds, in two epochs


@pytest.mark.parametrize("size", [1, 10**4, 10**9])
def test_networks_are_measured_as_one_by_one(size, monkeypatch):
    """However many at a time, of whatever sizes, and in whatever order the sets come; also twice, and averages."""
    optimizer = {"optimizer": "adam", "optimizer__average": "ema", "optimizer__average_decay": 0.5}
    runs = trained([small(engine="torch", **partner, **optimizer) for partner in PARTNERS])
    sets = [Labelled(run.data.x_test[:n], run.data.y_test[:n]) for run, n in zip(runs, (20, 300, 1, 300), strict=True)]
    sets += [Labelled(runs[0].data.x_test[7:], runs[0].data.y_test[7:])]
    runs = [*runs, runs[0]]
    expected = StackedEngine().evaluate(runs, sets)
    monkeypatch.setattr(stacked, "PASS", size)
    for found, one in zip(StackedEngine()._together(runs, sets), expected, strict=True):
        assert found.accuracy == one.accuracy
        assert found.loss == pytest.approx(one.loss, rel=1e-5)
    assert len({one.loss for one in expected}) == 5


class Shifted(nn.Module):
    """A network that has other outputs in training."""

    def __init__(self, d, depth, width, generator):
        super().__init__()
        self.layer = nn.Linear(d, 1)

    def forward(self, x):
        return self.layer(x).squeeze(-1) + (100 if self.training else 0)


class Centred(Shifted):
    """A network that looks at all points that it is given."""

    def forward(self, x):
        return super().forward(x - x.mean(0))


def test_a_users_own_network_sees_its_set_alone(emulated):
    model = parse_model({"_target_": "test_stacked.Centred"})
    runs = [Run(dataclasses.replace(small(seed=seed), model=model), None) for seed in range(4)]
    sets = [Labelled(r.data.x_test[:n], r.data.y_test[:n]) for r, n in zip(runs, (20, 300, 20, 1), strict=True)]
    for run, there, found in zip(runs, sets, StackedEngine()._together(runs, sets), strict=True):
        assert found.loss == pytest.approx(losses("hinge", run.model.eval()(there.x), there.y).item(), rel=1e-5)


def test_a_users_own_network_is_measured_as_out_of_training(emulated):
    model = parse_model({"_target_": "test_stacked.Shifted"})
    configs = [dataclasses.replace(small(seed=seed), model=model) for seed in range(3)]
    runs = [Run(config, None) for config in configs]
    sets = [Labelled(run.data.x_test, run.data.y_test) for run in runs]
    for run, there, found in zip(runs, sets, StackedEngine().evaluate(runs, sets), strict=True):
        assert found.loss == pytest.approx(losses("hinge", run.model.eval()(there.x), there.y).item(), rel=1e-5)
        assert found.loss < 50
    run = Run(configs[0], None)
    StackedEngine().evaluate([run], sets[:1])
    assert run.model.training


# --- graphs and memory


def test_a_graph_computes_the_same_bits(keys):
    graphs, plain = (
        [small(**keys, **partner, **{"trainer.cuda_graphs": None if graphs else False}) for partner in PARTNERS]
        for graphs in (True, False)
    )
    for run, expected in zip(*(trained(configs, stack=4) for configs in (graphs, plain)), strict=True):
        assert torch.equal(run.params, expected.params)
        assert numbers(run) == numbers(expected)


def refused(works, state):
    works[0]()
    raise RuntimeError("not permitted when stream is capturing\nand so on")


def test_what_cannot_be_captured_is_done_step_by_step(emulated, monkeypatch, caplog):
    configs = [small(engine="torch", **partner) for partner in PARTNERS]
    plain = trained(configs, stack=2)
    monkeypatch.setattr(stack, "captured", refused)
    for run, expected in zip(trained(configs, stack=2), plain, strict=True):
        same(run, expected)
    assert [m for m in caplog.messages if "captured" in m] == [
        "trainer.cuda_graphs=false: a step can't be captured: RuntimeError: not permitted when stream is capturing"
    ]


def test_a_graph_that_is_asked_for_and_cannot_be_is_an_error(emulated, monkeypatch):
    monkeypatch.setattr(stack, "captured", refused)
    run = Run(small(), None)
    before = run.params.clone()
    with pytest.raises(RuntimeError, match="not permitted"):
        StackedEngine(graphs=True).advance([run], [10], [])
    assert run.step == 0
    assert torch.equal(run.params, before)


@pytest.mark.parametrize("why", ["few steps", "graphs=False", "a CPU"])
def test_where_no_graph_would_gain_there_is_none(emulated, monkeypatch, why):
    if why == "few steps":
        monkeypatch.setattr(stacked, "LEAST", 101)
    if why == "a CPU":
        monkeypatch.setattr(stacked, "on_gpu", lambda device: False)
    StackedEngine(graphs=False if why == "graphs=False" else None).advance([Run(small(), None)], [10], [])
    assert emulated == []


def test_a_capture_leaves_the_state_as_it_was(monkeypatch):
    """With the calls of torch.cuda replaced by ones that do nothing."""
    monkeypatch.setattr(torch, "cuda", FakeCuda())
    tensor, calls = torch.tensor([1.0]), []

    def work():
        calls.append(torch.cuda.get_sync_debug_mode())
        tensor.add_(1)

    replays = captured([work, work], [tensor])
    assert tensor.item() == 1
    assert calls == 2 * [*([0] * (WARM - 1)), "error", 0]  # its last time before a capture it may wait for nothing
    assert [replay() for replay in replays] == ["replayed"] * 2
    assert FakeCuda.pools == [None, "first"]

    def fails():
        work()
        if torch.cuda.get_sync_debug_mode() == "error":  # as of work that waits for the GPU
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        captured([fails], [tensor])
    assert (tensor.item(), torch.cuda.get_sync_debug_mode()) == (1, 0)


class FakeCuda:
    """The calls of torch.cuda that a capture needs."""

    class _Nothing:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

        def wait_stream(self, other):
            pass

        def replay(self):
            return "replayed"

        def pool(self):
            return "first"

    current_stream = CUDAGraph = _Nothing

    pools: list[str | None] = []  # noqa: RUF012
    mode: int | str = 0

    def Stream(self, _):
        return self._Nothing()

    def current_device(self):
        return "fake"

    def get_sync_debug_mode(self):
        return self.mode

    def set_sync_debug_mode(self, mode):
        self.mode = mode

    def stream(self, _):
        return self._Nothing()

    def graph(self, _, pool, stream):
        self.pools.append(pool)
        return self._Nothing()


def test_memory_that_torch_cannot_give_back_is_no_failure(monkeypatch):
    def fails():
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    measured = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", fails)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: measured.append(True))
    stacked.forget()
    assert measured == [True]


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "CUDA driver error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_what_says_that_memory_has_ended(text):
    assert out_of_memory(RuntimeError(text))
    worker = Worker("0", 0)
    worker.fault = text
    assert worker.full
    assert not out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


def test_a_stack_takes_the_memory_that_there_is(emulated, monkeypatch):
    """First 256 networks; then as many as fill four fifths of a GPU, as the first ones take it up."""
    engine = StackedEngine()
    run = Run(small(), None)
    assert not engine.saturated([run] * 255, 9)
    assert engine.saturated([run] * 256, 9)
    engine.advance([run], [4], [])
    assert not engine.saturated([run] * 999, 9)
    assert engine.saturated([run] * 1000, 9)
    monkeypatch.setattr(stacked, "room", lambda count, more: 10**6)
    engine = StackedEngine()
    engine.advance([run], [4], [])
    assert not engine.saturated([run] * 4095, 9)
    assert engine.saturated([run] * 4096, 9)


def test_room_is_what_networks_take_of_all_memory(monkeypatch):
    cuda = SimpleNamespace(
        mem_get_info=lambda: (70 << 30, 80 << 30),
        memory_reserved=lambda: 10 << 30,
        max_memory_reserved=lambda: 4 << 30,
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    assert stacked.room(128, 0) == int(0.8 * 80 * 128 / 4)
    assert stacked.room(128, 3 << 25) == int(0.8 * 80 * 128 / 4 / 4)  # 4 GiB are 2^25 bytes for each of them


def test_layers_will_have_inputs_of_their_own():
    """Of the run and of its stack, in float32; the first layer's are the points, which runs share."""
    joint, layers = (Run(small(training=training), None) for training in ("joint", "layerwise"))
    assert stacked.later(joint) == 0
    assert stacked.later(layers) == 2 * len(layers.data.y_train) * layers.config.width * 4


@pytest.mark.parametrize("closed", [False, True])
def test_a_stack_that_is_let_go_of_holds_no_memory(closed):
    """Without Python's garbage collector, which comes late. One that is closed may still be held."""
    gc.disable()
    try:
        run = Run(small(), None)
        there = stack.Stack([run])
        there.advance(2, [])
        tensors = [weakref.ref(tensor) for tensor in (there.grad, there.work, there.x, there.total, there.params)]
        run.detach()
        if closed:
            there.close()
        else:
            del there
        assert [tensor() for tensor in tensors] == [None] * len(tensors)
    finally:
        gc.enable()


def test_where_memory_ends_there_are_smaller_stacks_without_graphs(emulated, monkeypatch, caplog):
    """What held the memory is free before the smaller ones are made, also where somebody keeps all lines of the log."""
    caplog.set_level(logging.DEBUG)
    made: list[weakref.ref[stack.Stack]] = []
    held: list[int] = []
    usual = stack.Stack.__init__

    def begin(self, runs, *rest, graphs=False, **keywords):
        held.append(sum(there() is not None for there in made))
        made.append(weakref.ref(self))
        usual(self, runs, *rest, graphs=graphs, **keywords)
        if len(runs) > 2:
            try:
                raise torch.OutOfMemoryError("CUDA out of memory")
            except torch.OutOfMemoryError:
                raise RuntimeError("the capture has failed")  # noqa: B904 (as torch does)
        assert not graphs

    configs = [small(engine="torch", **partner) for partner in PARTNERS]
    plain = trained(configs, stack=2)
    monkeypatch.setattr(stack.Stack, "__init__", begin)
    for run, expected in zip(trained(configs), plain, strict=True):
        same(run, expected)
    assert held[:4] == [0, 0, 0, 1]  # of four runs, twice, then of two and two
    assert [text for text in caplog.messages if "out of memory with" in text] == [
        "out of memory with 4 networks in a stack: going on without CUDA graphs",
        "out of memory with 4 networks in a stack: going on with 2",
    ]


def test_one_network_whose_graph_has_no_room_trains_without(emulated, monkeypatch):
    def full(works, state):
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        except torch.OutOfMemoryError:
            raise RuntimeError("the capture has failed")  # noqa: B904 (as torch does)

    [plain] = trained([small(engine="torch")])
    monkeypatch.setattr(stack, "captured", full)
    [run] = trained([small(engine="torch")])
    same(run, plain)


@pytest.mark.parametrize("where", ["_outputs", "losses"])
def test_where_memory_ends_fewer_are_measured_at_once(emulated, monkeypatch, where):
    usual, most = StackedEngine._outputs, []
    usual_losses = stacked.losses

    def outputs(self, runs, sets):
        most.append(len(runs))
        if len(runs) > 1 and where == "_outputs":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return usual(self, runs, sets)

    def its_losses(loss, f, y):
        if most[-1] > 1 and where == "losses":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return usual_losses(loss, f, y)

    runs = [Run(small(**partner), None) for partner in PARTNERS]
    sets = [Labelled(run.data.x_test, run.data.y_test) for run in runs]
    expected = StackedEngine().evaluate(runs, sets)
    monkeypatch.setattr(StackedEngine, "_outputs", outputs)
    monkeypatch.setattr(stacked, "losses", its_losses)
    for found, one in zip(StackedEngine().evaluate(runs, sets), expected, strict=True):
        assert found == pytest.approx(one, rel=1e-5)
    assert most == [4, 2, 1, 1, 1, 1]
    monkeypatch.setattr(StackedEngine, "_outputs", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        StackedEngine().evaluate(runs, sets)


def test_more_runs_join_when_memory_is_measured(emulated, monkeypatch, tmp_path):
    """Those that begin later are behind, and compute what they would alone."""
    monkeypatch.setattr(stacked, "FIRST", 2)
    configs = [small(engine="torch", **partner) for partner in PARTNERS]
    together = trained(configs)
    assert emulated[0] == 2  # then all four
    assert max(emulated) == 4
    for config, run in zip(configs, together, strict=True):
        [alone] = trained([config])
        close(run, alone)
        assert numbers(run)[-1][0] == 100

"""TensorFloat-32 and float32: what torch is told within an engine's products, and that nothing of it stays."""

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch
from conftest import changed, small
from test_images import binary, parts
from test_images import config as images
from torch.utils._python_dispatch import TorchDispatchMode

from fractal_ifs import ConfigError
from fractal_ifs.config.run import Job, RunConfig
from fractal_ifs.engines.arithmetic import multiplying
from fractal_ifs.engines.choice import check_engine
from fractal_ifs.runs.kernels import torch_kernels
from fractal_ifs.runs.run import Run
from fractal_ifs.training.train import train

BACKENDS: Any = torch.backends
CUDNN = BACKENDS.cudnn
KINDS = [BACKENDS, CUDNN, CUDNN.conv, CUDNN.rnn, BACKENDS.cuda.matmul, BACKENDS.mkldnn.matmul]
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")


def newer() -> list[str]:
    """All that torch's newer way says of a GPU's products, and of a CPU's."""
    return [kind.fp32_precision for kind in KINDS]


def told() -> dict[str, Any]:
    """All that torch has been told of how to multiply, both ways."""
    return {
        "products": torch.get_float32_matmul_precision(),
        "of a GPU": BACKENDS.cuda.matmul.allow_tf32,
        "convolutions": CUDNN.allow_tf32,
        "newer": newer(),
    }


@pytest.fixture(autouse=True)
def _as_it_was():
    before = newer()
    yield
    torch.set_float32_matmul_precision("highest")
    CUDNN.allow_tf32 = True
    for kind, value in zip(KINDS, before, strict=True):
        kind.fp32_precision = value


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("before", ["highest", "high", "medium", "without", "newer", "newer everywhere", "failing"])
def test_what_a_process_has_set_holds_again_afterwards(tf32, before):
    if before in ("highest", "high", "medium"):
        torch.set_float32_matmul_precision(before)
    elif before == "without":
        CUDNN.allow_tf32 = False
    elif before == "newer":  # which alone makes torch refuse to answer the older way
        BACKENDS.cuda.matmul.fp32_precision = CUDNN.conv.fp32_precision = "tf32"
    elif before == "newer everywhere":
        BACKENDS.fp32_precision = "tf32"
    was = newer() if "newer" in before else told()
    with pytest.raises(ZeroDivisionError) if before == "failing" else multiplying(tf32), multiplying(tf32):
        found = told()
        assert (found["products"], found["of a GPU"]) == (("high", True) if tf32 else ("highest", False))
        assert found["convolutions"] == tf32
        assert ("tf32" in found["newer"]) == tf32
        if before == "failing":
            raise ZeroDivisionError
    assert (newer() if "newer" in before else told()) == was


class Products(TorchDispatchMode):
    """Within: counts products, forward and backward, by what torch is told as they are computed."""

    def __init__(self):
        super().__init__()
        self.found = Counter[tuple[bool, bool]]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in PRODUCTS:
            self.found[BACKENDS.cuda.matmul.allow_tf32, CUDNN.allow_tf32] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("cifar10")
    for name, (x, y) in parts(12).items():
        (where / f"{name}.bin").write_bytes(binary(x, y))
    return where


def asked(config: RunConfig, tf32: bool, accelerator: Any = "auto") -> RunConfig:
    """As on a machine with a GPU; with ``auto`` it is trained on the CPU here."""
    trainer = dataclasses.replace(config.trainer, tf32=tf32, accelerator=accelerator)
    return dataclasses.replace(config, trainer=trainer)


@pytest.mark.filterwarnings("ignore:.*many workers", "ignore:.*treespec", "ignore:.*logging interval", "ignore:.*srun")
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("of", ["torch", "torch, layerwise", "conv", "lightning", "lightning, images"])
def test_every_product_of_a_run_is_as_asked(of, tf32, folder):
    """Also in what is measured of snapshots, and in the inputs of later layers."""
    keys = {"engine": "lightning"} if "lightning" in of else {}
    keys |= {"training": "layerwise"} if "layerwise" in of else {}
    steps = {"steps": 4, "eval_every": 2}
    config = images(folder, **steps, **keys) if of in ("conv", "lightning, images") else small(**steps, **keys)
    if "torch" in of:
        config = changed(config, "engine", "torch")
    config = changed(config, "measures", ["gradient"])
    torch_kernels()  # tries products of the CPU, once in a process
    before = told()
    assert before["convolutions"] != tf32 or before["of a GPU"] != tf32  # torch's own choice is a third
    with Products() as products:
        [run] = train([Job(asked(config, tf32), None)])
    assert isinstance(run, Run), run
    layers = config.depth if "layerwise" in of else 1
    assert (run.computed_by.engine, len(run.history)) == (of.split(",")[0], 2 * layers)
    assert list(products.found) == [(tf32, tf32)]
    assert products.found[tf32, tf32] > 3 * 4 * (config.depth - 1)  # of each layer and step, one forward and two back
    assert told() == before


def test_it_is_a_part_of_the_fingerprint_of_the_runs_that_ask_for_it(folder):
    for config in (small(), images(folder)):
        assert asked(config, False).fingerprint == config.fingerprint
        assert asked(config, True).fingerprint != config.fingerprint
        assert "tf32" not in config.identity()["trainer"]


def test_where_there_is_no_tensorfloat_it_is_refused():
    with pytest.raises(ConfigError, match=r"^trainer.tf32=true: needs a GPU, trainer=gpu$"):
        asked(small(), True, "cpu")
    with pytest.raises(ConfigError, match=r"^trainer.tf32=true: needs a GPU, trainer=gpu$"):
        asked(small(), True).on("cpu")  # what ``auto`` comes to where there is none
    with pytest.raises(ConfigError, match=r"^trainer.tf32=true: must be false with trainer.precision=64-true$"):
        asked(changed(small(), "trainer.precision", "64-true"), True)
    with pytest.raises(ConfigError, match=r"^engine=cuda: must be auto or torch here \(trainer.tf32=true asks"):
        check_engine(asked(changed(small(), "engine", "cuda"), True, "gpu"))

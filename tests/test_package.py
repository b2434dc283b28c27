"""The package as others import it: names, version, types, and `fractals` as a library of its own."""

import pydoc
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import fractal_ifs

ROOM = Path(fractal_ifs.__file__).parent


def output(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_names_are_shown_and_can_be_imported():
    names = ["AffineIFS", "ApproximationCurve", "ConfigError", "FractalDataModule", "FractalDistribution"]
    names += ["MLP", "Classifier", "load", "run"]
    assert set(names) < set(dir(fractal_ifs))
    assert all(getattr(fractal_ifs, name) for name in names)
    with pytest.raises(AttributeError, match="nothing"):
        _ = fractal_ifs.nothing  # pyright: ignore[reportAttributeAccessIssue]


def test_pythons_own_help_shows_the_names():
    text = pydoc.plain(pydoc.render_doc(fractal_ifs))
    for line in (
        "record, model = run(",
        "class FractalDistribution(",
        "class MLP(",
        "run(directory:",
        "load(directory:",
    ):
        assert line in text
    assert f"VERSION\n    {fractal_ifs.__version__}\n" in text


@pytest.mark.parametrize("room", ["fractal_ifs", "fractal_ifs.fractals", "fractal_ifs.networks"])
def test_every_name_of_a_stub_is_there(room):
    module = import_module(room)
    assert module.__all__
    assert all(hasattr(module, name) for name in module.__all__)


def test_the_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+|0\+unknown", fractal_ifs.__version__)
    code = "import importlib.metadata as m\ndef gone(name): raise m.PackageNotFoundError(name)\nm.version = gone\n"
    assert output(code + "import fractal_ifs; print(fractal_ifs.__version__)") == "0+unknown"


def test_importing_the_package_imports_nothing_large():
    code = "import sys, fractal_ifs, fractal_ifs.fractals, fractal_ifs.networks\n"
    code += "print({'torch', 'numpy', 'pandas', 'hydra', 'omegaconf', 'pytorch_lightning'} & set(sys.modules))"
    assert output(code) == "set()"


def test_fractals_need_neither_configs_nor_training():
    """Where Hydra, OmegaConf, Lightning, W&B and pandas can't be imported, a distribution is still drawn from."""
    code = "import sys\nfor name in ('hydra', 'omegaconf', 'pytorch_lightning', 'wandb', 'pandas', 'matplotlib'):\n"
    code += "    sys.modules[name] = None\n"
    code += "from fractal_ifs.fractals import FractalDistribution\n"
    code += "print(FractalDistribution('sierpinski_triangle', 4).sample(10).x.shape)"
    assert output(code) == "torch.Size([10, 2])"


def test_the_types_are_shipped():
    assert (ROOM / "py.typed").exists()
    assert [path.parent.name for path in sorted(ROOM.rglob("*.pyi"))] == ["fractal_ifs", "fractals", "networks"]

"""fractal_ifs: when does depth help a network that is trained by gradient descent?

from fractal_ifs import FractalDistribution, run, load
x, y, level = FractalDistribution("vicsek", curve=4).sample(1000)
record, model = run(fractal="vicsek", curve=1, width=20, steps=20_000)
record, history, config, model = load("multirun/table2/...")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fractal_ifs.api import run
    from fractal_ifs.data.points import FractalDataModule
    from fractal_ifs.errors import ConfigError
    from fractal_ifs.fractals.curve import ApproximationCurve
    from fractal_ifs.fractals.distribution import FractalDistribution
    from fractal_ifs.fractals.ifs import AffineIFS
    from fractal_ifs.networks.mlp import MLP
    from fractal_ifs.runs.load import load

# Read on first use: importing torch and Lightning takes seconds that `--help` and a refused config must not pay.
_HOMES = {
    "AffineIFS": "fractals.ifs",
    "ApproximationCurve": "fractals.curve",
    "ConfigError": "errors",
    "FractalDataModule": "data.points",
    "FractalDistribution": "fractals.distribution",
    "MLP": "networks.mlp",
    "load": "runs.load",
    "run": "api",
}
__all__ = [
    "MLP",
    "AffineIFS",
    "ApproximationCurve",
    "ConfigError",
    "FractalDataModule",
    "FractalDistribution",
    "load",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"fractal_ifs.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fractal_ifs' has no attribute {name!r}")

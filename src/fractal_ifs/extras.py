"""Packages that only some commands need. In pyproject.toml they are extras: ``pip install 'fractal_ifs[report]'``."""

from importlib.util import find_spec

from fractal_ifs.errors import ConfigError

# The packages of each extra, each with the module that is imported. pyproject.toml has their versions.
PLOT = {"matplotlib": "matplotlib"}
EXTRAS = {
    "plot": PLOT,
    "report": PLOT | {"pillow": "PIL", "plotly": "plotly", "pyarrow": "pyarrow"},
    "images": {"pooch": "pooch"},
    "onnx": {"onnx": "onnx", "onnxscript": "onnxscript"},
    "slurm": {"submitit": "submitit"},
    "dashboard": {"wandb-workspaces": "wandb_workspaces"},
}


def require(extra: str, *packages: str) -> None:
    """Check that the packages of an extra are installed, without importing them.

    Args:
        packages: check only these of them.

    Raises ConfigError that says how to install the first that is missing.
    """
    for package, module in EXTRAS[extra].items():
        if (not packages or package in packages) and find_spec(module) is None:
            raise ConfigError(f"{package} is not installed; pip install 'fractal_ifs[{extra}]'")

"""The rooms of the house: imports go down only, `fractals` stands alone, and imports are at the top of their files."""

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
FLOORS = ["errors", "extras", "files", "mkl", "streams", "version", "fractals", "config", "networks", "data", "runs"]
# each may import itself and those before it
FLOORS += ["plotting", "engines", "measures", "training", "results", "sweeps", "theorems", "report", "help"]
DOORS = ["__main__", "train", "plot", "theory", "doctor", "dashboard", "completion", "api", "report/__main__"]
DOORS += ["predict", "predictions", "export", "hydra_plugins"]  # all of them


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every module or name imported in a file, with its package's name, and whether at the top: not in a function."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports by its place"
            found.extend((f"{node.module}.{alias.name}", top) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child, top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(ast.parse(path.read_text()), True)
    return found


def wrong(path: Path) -> list[str]:
    """What a file of ours imports against the rules."""
    place = path.relative_to(SOURCE).with_suffix("").as_posix().removeprefix("fractal_ifs/")
    room = place.split("/")[0]
    if place in DOORS or room in DOORS or place == "__init__":
        return []
    below = FLOORS[: FLOORS.index(room) + 1]
    ours = [
        (name.split("."), top) for name, top in imports(path) if name.split(".")[0] in ("fractal_ifs", "hydra_plugins")
    ]
    return [
        f"{place}: {'.'.join(name)}" for name, top in ours if not ((top or slow(name)) and set(name[1:2]) <= set(below))
    ]


def slow(name: list[str]) -> bool:
    """Whether what is imported has Lightning at its top, or all engines with torch, which takes seconds, or the readers
    of images with numpy, which a refusal needn't wait for: it may be imported where it is used.
    """
    if name[1:3] in (["engines", "choice"], ["data", "readers"]):
        return True
    path = SOURCE.joinpath(*name[:3]).with_suffix(".py")
    return path.is_file() and any(each.startswith("pytorch_lightning") and top for each, top in imports(path))


def test_imports_go_down_and_stand_at_the_top():
    found = [line for path in sorted(SOURCE.rglob("*.py")) for line in wrong(path)]
    assert not found


def test_fractals_stand_on_numpy_scipy_torch_and_yaml():
    """lazy_loader, which needs the standard library alone, is for the names of the room."""
    names = {name.split(".")[0] for path in (SOURCE / "fractal_ifs/fractals").glob("*.py") for name, _ in imports(path)}
    assert names - set(sys.stdlib_module_names) == {"fractal_ifs", "numpy", "scipy", "torch", "yaml", "lazy_loader"}


def test_the_rules_can_be_broken(tmp_path, monkeypatch):
    """Else the tests above would hold whatever stands in the files."""
    monkeypatch.setattr("test_rooms.SOURCE", tmp_path)
    path = tmp_path / "fractal_ifs" / "runs" / "run.py"
    path.parent.mkdir(parents=True)
    for line, found in (
        ("from fractal_ifs.config.run import RunConfig", []),
        ("from fractal_ifs.report import page", ["runs/run: fractal_ifs.report.page"]),
        ("import fractal_ifs.sweeps.sweep", ["runs/run: fractal_ifs.sweeps.sweep"]),
        ("from fractal_ifs import training", ["runs/run: fractal_ifs.training"]),
        ("def f():\n    from fractal_ifs.config import run", ["runs/run: fractal_ifs.config.run"]),
    ):
        path.write_text(line + "\n")
        assert wrong(path) == found
    path.write_text("from .. import report\n")
    with pytest.raises(AssertionError, match="imports by its place"):
        wrong(path)

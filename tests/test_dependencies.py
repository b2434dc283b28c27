"""What pyproject.toml says of packages is true: the lowest versions, and what works without the extras."""

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import PackageNotFoundError, PackagePath, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import small
from packaging.requirements import Requirement

from fractal_ifs.dashboard import workspace
from fractal_ifs.data import cifar10
from fractal_ifs.errors import ConfigError
from fractal_ifs.export import export
from fractal_ifs.extras import EXTRAS
from fractal_ifs.plot import write_pictures
from fractal_ifs.report.write import write_report
from fractal_ifs.sweeps import slurm

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
KEPT = ROOT / "docs" / "reproduction" / "figure7.csv"


def of_extra(name: str) -> list[Requirement]:
    """The packages of an extra, and of those that it names."""
    found = []
    for requirement in map(Requirement, PROJECT["optional-dependencies"][name]):
        ours = requirement.name == PROJECT["name"]
        found += [package for extra in requirement.extras for package in of_extra(extra)] if ours else [requirement]
    return found


def test_the_lowest_versions_are_those_of_the_project():
    """``make test-lowest`` installs what it says it does."""
    bounds = []
    for requirement in [*map(Requirement, PROJECT["dependencies"]), *of_extra("all")]:
        [lowest] = [each.version for each in requirement.specifier if each.operator == ">="]
        bounds.append(f"{requirement.name}=={lowest}")
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    assert sorted(line for line in lines if not line.startswith("#")) == sorted(bounds)


def test_compromised_versions_are_excluded():
    [lightning] = [each for each in map(Requirement, PROJECT["dependencies"]) if each.name == "pytorch-lightning"]
    assert [version for version in ("2.6.1", "2.6.2", "2.6.3", "2.6.4") if version not in lightning.specifier] == [
        "2.6.2",
        "2.6.3",
    ]


def test_every_extra_is_known_to_the_commands():
    for extra, packages in EXTRAS.items():
        assert sorted(packages) == sorted(each.name for each in of_extra(extra))
    assert {each.name for each in of_extra("all")} == {package for packages in EXTRAS.values() for package in packages}
    assert {each.name for each in of_extra("all")} < {each.name for each in of_extra("dev")}


def images(where: Path) -> None:
    cifar10.load(small(data="cifar10", model="cnn", data__dir=str(where)).data)


# For each extra, what asks for it; it is given a directory where it may write.
DOORS = {
    "plot": lambda path: write_pictures(["fractal=vicsek", f"out={path / 'out'}"]),
    "report": lambda path: write_report([KEPT], path / "out"),
    "images": images,
    "slurm": lambda path: slurm.submit([], [path / "out"], None),  # pyright: ignore[reportArgumentType]
    "dashboard": lambda path: workspace("someone"),
    "onnx": lambda path: export(path / "run", path / "network.onnx"),
}


@pytest.mark.parametrize(
    ("extra", "package", "module"),
    [(extra, package, module) for extra, packages in EXTRAS.items() for package, module in packages.items()],
)
def test_a_missing_package_is_told_in_one_line_before_anything_is_done(extra, package, module, tmp_path, monkeypatch):
    if not all(find_spec(other) for other in EXTRAS[extra].values()):
        pytest.skip(f"the extra {extra} is not installed")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError) as refusal:
        DOORS[extra](tmp_path)
    assert str(refusal.value) == f"{package} is not installed; pip install 'fractal_ifs[{extra}]'"
    assert not list(tmp_path.iterdir())


def test_a_report_without_figures_needs_only_parquet(tmp_path, monkeypatch):
    for module in set(EXTRAS["report"].values()) - {"pyarrow"}:
        monkeypatch.setitem(sys.modules, module, None)
    write_report([KEPT], tmp_path / "out", with_figures=False)
    assert (tmp_path / "out" / "results.parquet").exists()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="pyarrow is not installed"):
        write_report([KEPT], tmp_path / "again", with_figures=False)
    assert not (tmp_path / "again").exists()


def test_the_place_for_fetched_images_is_known_to_pooch(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ConfigError, match="pooch is not installed"):
        cifar10.directory(small(data="cifar10", model="cnn").data)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An environment without any extra: links to all that is installed here, but to no file of theirs."""
    installed, site = Path(sysconfig.get_path("purelib")), tmp_path_factory.mktemp("bare")
    files: list[PackagePath] = []
    for name in (name for packages in EXTRAS.values() for name in packages):
        with contextlib.suppress(PackageNotFoundError):
            files += distribution(name).files or ()
    without = {file.parts[0] for file in files} | {"hydra_plugins"}  # those plugins import packages of extras
    for path in installed.iterdir():
        if path.name not in without and not path.name.startswith("__editable__"):
            (site / path.name).symlink_to(path)

    def run(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """``python -m fractal_ifs.WORDS`` in that environment: with -S, Python doesn't look into its own."""
        env = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{site}"}
        command = [sys.executable, "-S", "-m", f"fractal_ifs.{words[0]}", *words[1:]]
        return subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=300)

    return run


SWEEP = ["-m", "fractal=vicsek", "curve=1,4", "width=8", "depth=2", "steps=40", "eval_every=20", "sweep=s"]
SWEEP += ["data.train_size=400", "data.test_size=100", "logger.mode=offline", "logger.timeout=300", "kept=kept.csv"]


@pytest.mark.slow
def test_without_extras_sweeps_train_and_are_told_of(bare, tmp_path):
    """The default logger, the table, going on, the kept table, and all that shows how a sweep stands."""
    done = bare(tmp_path, "train", *SWEEP)
    assert (done.returncode, done.stderr) == (0, "")
    assert "best test accuracy" in done.stdout
    directories = sorted(tmp_path.glob("multirun/s/*/"))
    logged = list(tmp_path.glob("multirun/s/*/wandb/offline-run-*/*.wandb"))
    assert len(logged) == len(directories) == 2, done.stdout
    (directories[0] / "result.json").unlink()  # is trained again, from its checkpoint
    assert len((tmp_path / "kept.csv").read_text().splitlines()) == 3
    done = bare(tmp_path, "train", *SWEEP, "kept=")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(json.loads((each / "result.json").read_text())["status"] == "finished" for each in directories)
    done = bare(tmp_path, "report", "status", "multirun/s")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 finished" in done.stdout
    done = bare(tmp_path, "report", "collect", "multirun/s", "--into", "again.csv")
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 runs added to again.csv, which has 2\n", "")
    done = bare(tmp_path, "doctor")
    assert done.returncode == 0, done.stderr
    assert "width 100" in done.stdout


@pytest.mark.slow
def test_without_extras_statements_are_checked_but_not_drawn(bare, tmp_path):
    refused = bare(tmp_path, "theory", "theorem3")
    assert refused.returncode == 1
    assert refused.stderr == "error: matplotlib is not installed; pip install 'fractal_ifs[plot]'\n"
    assert not list(tmp_path.rglob("theory.json"))
    done = bare(tmp_path, "theory", "theorem3", "figures=false")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(tmp_path.rglob("theory.json"))) == 1


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        (["plot", "fractal=vicsek"], "matplotlib", "plot"),
        (["report", str(KEPT)], "matplotlib", "report"),
        (["train", *SWEEP, "hydra/launcher=slurm"], "submitit", "slurm"),
        (["dashboard", "someone", "--print"], "wandb-workspaces", "dashboard"),
    ],
)
def test_without_extras_a_command_refuses_in_one_line(bare, words, package, extra, tmp_path):
    done = bare(tmp_path, *words)
    assert done.returncode == 1
    assert done.stderr == f"error: {package} is not installed; pip install 'fractal_ifs[{extra}]'\n"
    assert not list(tmp_path.rglob("result.json"))

"""A wheel built from this tree trains from any directory: package, configs and compiled engine are in it."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from setuptools.dist import Distribution

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The wheel, installed into a directory of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # A copy without what was built, so that nothing stale gets in, and without git, so that the record names no commit.
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        source, target = ROOT / name, folder / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.readlink()) if source.is_symlink() else target.write_bytes(source.read_bytes())
    # Only the engine is not compiled again, which takes a minute, where this tree's is newer than all its sources.
    sources = [ROOT / name for name in files if name == "setup.py" or name.startswith("src/native/")]
    command = Distribution({"name": "fractal_ifs"}).get_command_obj("build")
    command.ensure_finalized()
    built = folder / "tree" / command.build_platlib / "fractal_ifs"
    built.mkdir(parents=True)
    for module in (ROOT / "src" / "fractal_ifs").glob(f"_native_*{sysconfig.get_config_var('EXT_SUFFIX')}"):
        if module.stat().st_mtime > max(path.stat().st_mtime for path in sources):
            (built / module.name).write_bytes(module.read_bytes())
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "dist", folder / "tree"],
        check=True,
    )
    [wheel] = (folder / "dist").glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def test_the_command_of_the_wheel(site):
    """Pip puts it into the folder of scripts, with the interpreter that it installs for."""
    command = [site / "bin" / "fractal-ifs", "--version"]
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    [name] = [path.name for path in site.glob("fractal_ifs-*.dist-info")]
    assert (done.stdout, done.stderr) == (f"fractal_ifs {name.split('-')[1].removesuffix('.dist')}\n", "")


def test_a_sweep_from_the_wheel(site, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(site)}
    keys = ["fractal=vicsek", "curve=1,6", "width=10", "steps=200", "eval_every=100", "logger=csv", "sweep=s"]
    keys += ["data.train_size=1000", "data.test_size=500"]
    code = "import fractal_ifs, runpy; print(fractal_ifs.__file__); "
    code += "runpy.run_module('fractal_ifs.train', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, "-m", *keys], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout.splitlines()[0]
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("multirun/s/*/result.json"))]
    assert [record["curve"] for record in records] == ["1", "6"]
    assert all(record["status"] == "finished" and record["engine"] == "native" for record in records)

"""benchmarks/gpu.py, as far as it runs without a GPU: what its parts and rows, each a process, cost each other."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

GPU = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch):
    """The module, for a CPU."""
    spec = importlib.util.spec_from_file_location("benchmarks_gpu", GPU)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DEVICE", "cpu")
    return module


def run(*words, **environment) -> str:
    """What the script says."""
    ended = subprocess.run(
        [sys.executable, str(GPU), *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_without_a_gpu_every_part_says_so():
    told = run("--parts", "machine", "cells", CUDA_VISIBLE_DEVICES="")
    assert told.count("not measured: there is no GPU here that PyTorch can use") == 2


def test_a_part_is_ended_with_all_that_it_has_started(gpu, tmp_path, capfd):
    """Here a child of its child, which goes on where only the part is killed."""
    for seconds, said in ((3, "not measured further: its time is over"), (60, "done")):
        grandchild = f"import os, time; open(r'{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(60)"
        wait = "while not open(os.devnull) or not os.path.exists(sys.argv[1]): time.sleep(0.01)"
        child = f"import os, subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {grandchild!r}])\n"
        child += wait if seconds > 10 else "time.sleep(60)"
        gpu.part("toy", [sys.executable, "-c", child, str(tmp_path / "pid")], seconds)
        assert said in capfd.readouterr().out
        pid = Path(tmp_path, "pid")
        for _ in range(100):
            state = Path(f"/proc/{pid.read_text()}/stat")
            if not state.exists() or state.read_text().split(")")[-1].split()[0] == "Z":
                break
            time.sleep(0.05)
        else:
            pytest.fail("it goes on")
        pid.unlink()


def test_a_row_that_breaks_its_process_costs_one_width(gpu, capfd):
    """Whether it dies, says that its GPU is gone, or hangs."""
    script = (
        "import os, signal, sys\n"
        "for width in sys.argv[1:]:\n"
        "    if width == '20': os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if width == '100': signal.alarm(1); signal.pause()\n"
        "    print(f'| row | 24 | {width} | ' + ('not measured' if width == '50' else '1') + ' |', flush=True)\n"
        "    if width == '50': os._exit(3)\n"
    )
    gpu.follow(lambda left: [sys.executable, "-c", script, *map(str, left)], "row", 24, (10, 20, 50, 100, 200))
    lines = capfd.readouterr().out.splitlines()
    assert [line.split("|")[-2].strip() for line in lines if line.startswith("|")] == [
        "1",
        *["not measured"] * 3,
        "1",
    ]
    assert [line for line in lines if not line.startswith("|")] == [
        "not measured: row, 24 runs, width 20: its process ended with -11",
        "not measured: row, 24 runs, width 100: it took more than 60 s",
    ]


@pytest.mark.slow
def test_a_row_of_the_cuda_engine_and_what_it_says_of_kernels(tmp_path):
    """On a CPU in place of a GPU, which tells of no registers. A row that fails is no failure of the process."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler here")
    words, emulated = ("--device", "cpu", "--inner"), {"FRACTAL_IFS_EMULATED_GPU": str(tmp_path)}
    told = run(*words, "row", "--row", "engine=cuda", "--runs", "2", "--widths", "2", "999", **emulated)
    first, why, second = told.splitlines()
    assert float(first.split("|")[-2]) > 0
    assert why == "not measured: engine=cuda, 2 runs, width 999: width=999: the cuda engine has at most 128"
    assert second == "| engine=cuda | 2 | 999 | not measured |"
    assert "engine=cuda: emulated, C++, 2 multiprocessors" in run(*words, "machine", **emulated)


def test_what_a_folder_of_packages_has_is_found(gpu, tmp_path):
    """In a copy of the tree with .site, by the parts and by what they start."""
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(GPU, tmp_path / "benchmarks")
    (tmp_path / ".site" / "lacking").mkdir(parents=True)
    (tmp_path / ".site" / "lacking" / "__init__.py").write_text("print('found')\n")
    code = f"import sys; sys.path.insert(0, r'{tmp_path / 'benchmarks'}'); import gpu\n"
    code += "gpu.has_gpu = lambda: True\n"
    code += "gpu.inner = lambda *given: [sys.executable, '-c', 'import lacking']\n"
    code += "gpu.main(['--parts', 'machine'])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "found" in told


def test_the_parts_share_the_time(gpu, monkeypatch):
    """What one leaves is for those behind it, and none gets more than there is."""
    given = []
    monkeypatch.setattr(gpu, "has_gpu", lambda: True)
    monkeypatch.setattr(gpu, "part", lambda name, command, seconds: given.append((name, seconds)))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    gpu.main(["--seconds", "340"])
    names = [name for name, _ in given]
    assert names == ["machine", "tests", "steps", "tiles", "start", "convolutions"]
    assert given[0][1] == pytest.approx(30, abs=0.1)
    assert given[-1][1] == pytest.approx(340, abs=0.5)

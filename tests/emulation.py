"""GPUs without one: fixtures for the tests of kernels, which run on a CPU then."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fractal_ifs.engines import cuda_device
from fractal_ifs.engines.cuda_device import Emulated

VARIABLE = "FRACTAL_IFS_EMULATED_GPU"


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    """The folder of compiled kernels."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler here")
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def emulated(kernels, monkeypatch):
    """A CPU in place of a GPU. Gives the keys of a run there."""
    monkeypatch.setenv(VARIABLE, str(kernels))
    cuda_device.look_again()
    yield {"engine": "cuda"}
    cuda_device.look_again()


@pytest.fixture(scope="session")
def fake_cuda(tmp_path_factory):
    """A library that is both, without a GPU. Against NVIDIA's headers, where they are."""
    if shutil.which("cc") is None or shutil.which("c++") is None:
        pytest.skip("no compiler here")
    path = tmp_path_factory.mktemp("fake") / "fake_cuda.so"
    headers = Path("/usr/local/cuda/include")
    flags = ["-DHEADERS", f"-I{headers}"] if (headers / "nvrtc.h").exists() else []
    source = Path(__file__).with_name("fake_cuda.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-w", *flags, "-o", path, source, "-ldl"], check=True)
    return path


@pytest.fixture
def gpu(fake_cuda, monkeypatch, tmp_path):
    """A GPU as far as the engine can tell, on a CPU whose streams are one."""
    monkeypatch.setenv("FAKE_FOLDER", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    load = ctypes.CDLL
    names = ("libcuda.so.1", *cuda_device.NVRTC)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: load(str(fake_cuda) if Path(path).name in names else path))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0x123))
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device="cpu", **keys: zeros(*size, **keys))
    monkeypatch.setattr(cuda_device.Gpu, "kind", "cpu")
    monkeypatch.setattr(cuda_device.Gpu, "stream", Emulated.stream)
    monkeypatch.setattr(cuda_device.Gpu, "event", Emulated.event)
    cuda_device.look_again()
    yield
    cuda_device.look_again()

"""Where kernels of the cuda engine run: a GPU, by NVRTC and the driver; or, for tests, a CPU, by a C++ compiler.

NVRTC comes with PyTorch's builds for CUDA, and the driver with the GPU. Both have a C interface that is public and
stable, of which a dozen functions are called here: so the engine needs no package besides.
"""

# pyright: reportUnknownMemberType=false
# (torch doesn't declare the type of Stream.wait_stream)

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import subprocess
from collections.abc import Callable, Collection, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from fractal_ifs import files
from fractal_ifs.config import environment
from fractal_ifs.config.machine import cores
from fractal_ifs.engines import cuda_kernel

# Numbers of cuda.h: cuDeviceGetAttribute's, cuFuncGetAttribute's, cuFuncSetAttribute's
MULTIPROCESSORS, MAJOR, MINOR, SHARED = 16, 75, 76, 97
LOCAL, REGISTERS = 3, 4
DYNAMIC_SHARED, CARVEOUT = 8, 9
LEAST = 80  # compute capability: of GPUs whose maximum can keep NaN
NVRTC = ("libnvrtc.so.13", "libnvrtc.so.12")
OPTIONS = ("--std=c++17",)  # of NVRTC, besides the architecture


class NoKernel(RuntimeError):
    """Kernels can't run here, or not this one; the message says why in a line."""


class Layout(Protocol):
    """What a block of a kernel takes."""

    @property
    def threads(self) -> int:
        """How many."""
        ...

    @property
    def bytes(self) -> int:
        """Of shared memory."""
        ...

    @property
    def blocks(self) -> int:
        """How many a multiprocessor is to have room for."""
        ...


class Program(Hashable, Protocol):
    """The source of a kernel."""

    @property
    def functions(self) -> Sequence[str]:
        """Their names. The first is the one whose blocks are counted."""
        ...

    @property
    def title(self) -> str:
        """What it is, for messages."""
        ...

    def layout(self) -> Layout:
        """What a block takes."""
        ...

    def source(self) -> str:
        """The whole source, for NVRTC or a C++ compiler."""
        ...


class Kernel(Protocol):
    """The compiled functions of a program."""

    @property
    def blocks(self) -> int:
        """How many blocks of its first function a multiprocessor has room for at a time."""
        ...

    def __call__(self, function: str, argument: Any, blocks: int, slices: int = 1) -> None:
        """Let ``blocks`` times ``slices`` blocks run after what the current stream has.

        Args:
            argument: what each of them is given, by value: of ``ctypes``.
        """
        ...


class Device(Protocol):
    """What runs kernels. ``kind`` is PyTorch's name of it."""

    kind: str
    isa: str  # that bits depend on: sm_90
    build: str  # likewise: the compiler
    shared_bytes: int  # that a block may have
    multiprocessors: int

    def compile(self, programs: Collection[Program]) -> dict[Program, Kernel | NoKernel]:
        """The kernel of each program, or why there is none. New ones are compiled side by side, and stay loaded."""
        ...

    def blocks(self, program: Program) -> int:
        """How many of its blocks a multiprocessor has room for; before it is compiled, as many as are asked for."""
        ...

    def stream(self, first: bool = False) -> contextlib.AbstractContextManager[Any]:
        """A new stream. What is asked for within it runs in its order, beside other streams', or before theirs."""
        ...

    def event(self) -> Event:
        """A mark after what the current stream has by now."""
        ...


class Event(Protocol):
    """A mark in a stream."""

    def synchronize(self) -> None:
        """Wait until all before it is done."""
        ...

    def wait(self) -> None:
        """Let the current stream wait for it."""
        ...


def device() -> Device:
    """The device of this process, which is looked for once. Raises NoKernel."""
    if isinstance(found := _device(), NoKernel):
        raise NoKernel(str(found))  # another, which holds no frame of who asks
    return found


@lru_cache
def _device() -> Device | NoKernel:
    if folder := environment.emulated_gpu():
        return Emulated(Path(folder))
    try:
        return Gpu()
    except NoKernel as error:
        return error


def look_again() -> None:
    """Forget the device and all that was compiled for it."""
    _device.cache_clear()


class _Library:
    """A C library whose functions return 0, or the number of an error."""

    def __init__(self, path: str, explain: str):
        self._library, self._explain = ctypes.CDLL(path), explain

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call a function. Raises NoKernel for an error."""
        if code := getattr(self._library, name)(*arguments):
            raise NoKernel(f"{name}: {self.error(code)}")

    def error(self, code: int) -> str:
        """What the library says of an error."""
        function = getattr(self._library, self._explain)
        if self._explain.startswith("nvrtc"):
            function.restype = c_char_p
            return (function(code) or b"").decode()
        text = c_char_p()
        function(code, byref(text))
        return (text.value or f"error {code}".encode()).decode()


def _driver() -> _Library:
    try:
        return _Library("libcuda.so.1", "cuGetErrorString")
    except OSError:
        raise NoKernel("there is no driver of NVIDIA's here (libcuda.so.1)") from None


def nvrtc() -> _Library:
    """NVRTC: of the packages that PyTorch has brought, else of the system."""
    found = importlib.util.find_spec("nvidia")
    folders = [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    major = (torch.version.cuda or "").split(".")[0]
    names = sorted(NVRTC, key=lambda name: not name.endswith(f".{major}"))  # PyTorch's own first
    here = [path for name in names for folder in folders for path in sorted(folder.glob(f"*/lib/{name}"))]
    here += [path for name in names if (path := Path(torch.__file__).with_name("lib") / name).exists()]
    for path in here:
        with contextlib.suppress(OSError):
            for builtins in path.parent.glob("libnvrtc-builtins.so.*"):  # which it looks for by their name alone
                ctypes.CDLL(str(builtins))
            return _Library(str(path), "nvrtcGetErrorString")
    for name in names:
        with contextlib.suppress(OSError):
            return _Library(name, "nvrtcGetErrorString")
    raise NoKernel("NVRTC isn't there, which comes with PyTorch's builds for CUDA (libnvrtc.so)")


Code = TypeVar("Code")


class _Kernels:
    """The kernels of a process on a device."""

    def __init__(self) -> None:
        self.there: dict[Program, Kernel | NoKernel] = {}

    def __call__(
        self, programs: Collection[Program], code: Callable[[Program], Code], load: Callable[[Code, Program], Kernel]
    ) -> dict[Program, Kernel | NoKernel]:
        """As of ``Device.compile``. ``code`` is called in threads, ``load`` in this one; both may raise NoKernel."""
        missing = [program for program in programs if program not in self.there]
        with ThreadPoolExecutor(cores()) as pool:
            making = [pool.submit(code, program) for program in missing]
        for program, made in zip(missing, making, strict=True):
            try:
                self.there[program] = load(made.result(), program)
            except NoKernel as error:
                self.there[program] = error
        return {program: self.there[program] for program in programs}

    def blocks(self, program: Program) -> int:
        """As of ``Device``."""
        kernel = self.there.get(program)
        return program.layout().blocks if kernel is None or isinstance(kernel, NoKernel) else kernel.blocks


class Gpu:
    """The first GPU that this process may use.

    Raises NoKernel where there is none, or none that kernels can run on. Makes no context on it: a driver of workers
    asks only what there is.
    """

    kind = "cuda"

    def __init__(self) -> None:
        self.driver, self.compiler = _driver(), nvrtc()
        self.driver("cuInit", c_uint(0))
        self.number = c_int()
        self.driver("cuDeviceGet", byref(self.number), c_int(0))
        self.multiprocessors, self.shared_bytes = self._attribute(MULTIPROCESSORS), self._attribute(SHARED)
        self.capability = 10 * self._attribute(MAJOR) + self._attribute(MINOR)
        if self.capability < LEAST:
            raise NoKernel(f"the GPU has compute capability {self.capability / 10}, at least {LEAST / 10} is needed")
        major, minor = c_int(), c_int()
        self.compiler("nvrtcVersion", byref(major), byref(minor))
        self.isa, self.build = f"sm_{self.capability}", f"NVRTC {major.value}.{minor.value}"
        self._kernels: dict[int, _Kernels] = {}

    @property
    def kernels(self) -> _Kernels:
        """Those of PyTorch's current GPU: a kernel is loaded on one."""
        number = torch.cuda.current_device() if torch.cuda.is_initialized() else 0
        return self._kernels.setdefault(number, _Kernels())

    def _attribute(self, which: int) -> int:
        value = c_int()
        self.driver("cuDeviceGetAttribute", byref(value), c_int(which), self.number)
        return value.value

    def compile(self, programs: Collection[Program]) -> dict[Program, Kernel | NoKernel]:
        """As of ``Device``."""

        def code(program: Program) -> bytes:
            said = " ".join([self.build, self.isa, *OPTIONS, program.source()])
            return cached(said, lambda: compiled(self.compiler, program, self.isa))

        return self.kernels(programs, code, lambda made, program: Loaded(self.driver, made, program))

    def blocks(self, program: Program) -> int:
        """As of ``Device``."""
        return self.kernels.blocks(program)

    def stream(self, first: bool = False) -> contextlib.AbstractContextManager[Any]:
        """As of ``Device``."""
        return torch.cuda.stream(torch.cuda.Stream(priority=-int(first)))

    def event(self) -> Event:
        """As of ``Device``."""
        return torch.cuda.current_stream().record_event()


def cached(said: str, make: Callable[[], bytes]) -> bytes:
    """What ``make`` returns, which depends on ``said``: from the user's cache, if it was made before.

    A file there begins with the digest of the rest, so that a damaged one is made again.
    """
    if (folder := environment.kernel_cache()) is None:
        return make()
    path = folder / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.cubin"
    with contextlib.suppress(OSError):
        found = path.read_bytes()
        if found[:32] == hashlib.sha256(found[32:]).digest():
            return found[32:]
    made = make()
    with contextlib.suppress(OSError):  # where nothing can be written it is made each time
        folder.mkdir(parents=True, exist_ok=True)
        files.write(path, hashlib.sha256(made).digest() + made, durable=False)
    return made


def compiled(compiler: _Library, program: Program, isa: str) -> bytes:
    """The machine code of a program for an instruction set, by NVRTC. Needs no GPU. Raises NoKernel."""
    handle = c_void_p()
    source = program.source().encode()
    compiler("nvrtcCreateProgram", byref(handle), c_char_p(source), c_char_p(b"cuda_kernel.cu"), c_int(0), None, None)
    try:
        options = [option.encode() for option in (f"--gpu-architecture={isa}", *OPTIONS)]
        try:
            compiler("nvrtcCompileProgram", handle, c_int(len(options)), (c_char_p * len(options))(*options))
        except NoKernel as error:
            said = _text(compiler, handle, "ProgramLog").decode(errors="replace")
            first = next((line for line in said.splitlines() if "error" in line), said.strip())
            raise NoKernel(f"{program.title} doesn't compile: {first or error}") from None
        return _text(compiler, handle, "CUBIN")
    finally:
        compiler("nvrtcDestroyProgram", byref(handle))


def _text(compiler: _Library, handle: c_void_p, what: str) -> bytes:
    size = c_size_t()
    compiler(f"nvrtcGet{what}Size", handle, byref(size))
    text = ctypes.create_string_buffer(size.value)
    compiler(f"nvrtcGet{what}", handle, text)
    return text.raw


class Resources(NamedTuple):
    """What a function takes of a GPU."""

    registers: int  # of a thread
    spilled: int  # bytes of memory of a thread's own, where registers aren't enough
    shared: int  # bytes of a block
    blocks: int  # that have room on a multiprocessor at a time


class Loaded:
    """A program on a GPU."""

    def __init__(self, driver: _Library, code: bytes, program: Program):
        torch.zeros(1, device="cuda")  # the context of PyTorch is this thread's from now on
        self.driver, self.layout, self.module = driver, program.layout(), c_void_p()
        self.functions: dict[str, c_void_p] = {}
        driver("cuModuleLoadData", byref(self.module), c_char_p(code))
        for name in program.functions:
            self.functions[name] = function = c_void_p()
            driver("cuModuleGetFunction", byref(function), self.module, c_char_p(name.encode()))
            driver("cuFuncSetAttribute", function, c_int(DYNAMIC_SHARED), c_int(self.layout.bytes))
            if self.layout.bytes:  # else the caches are left as other kernels have them
                driver("cuFuncSetAttribute", function, c_int(CARVEOUT), c_int(100))  # percent of the caches
        self.blocks = self.resources(program.functions[0]).blocks

    def __call__(self, function: str, argument: Any, blocks: int, slices: int = 1) -> None:
        parameters = (c_void_p * 1)(ctypes.addressof(argument))
        grid = [c_uint(n) for n in (blocks, slices, 1, self.layout.threads, 1, 1, self.layout.bytes)]
        stream = c_void_p(torch.cuda.current_stream().cuda_stream)
        self.driver("cuLaunchKernel", self.functions[function], *grid, stream, parameters, None)

    def resources(self, function: str) -> Resources:
        """What one of its functions takes, as the driver says."""
        found, which = (c_int(), c_int(), c_int()), self.functions[function]
        self.driver("cuFuncGetAttribute", byref(found[0]), c_int(REGISTERS), which)
        self.driver("cuFuncGetAttribute", byref(found[1]), c_int(LOCAL), which)
        most, size = c_int(self.layout.threads), c_size_t(self.layout.bytes)
        self.driver("cuOccupancyMaxActiveBlocksPerMultiprocessor", byref(found[2]), which, most, size)
        return Resources(found[0].value, found[1].value, self.layout.bytes, found[2].value)


class Emulated:
    """A CPU that runs the same source, a thread of a block after the other: for tests, and slow.

    Args:
        folder: where compiled programs are kept.

    The environment variable CXX names the compiler, CXXFLAGS what it is told besides.
    """

    kind, isa, build, shared_bytes, multiprocessors = "cpu", "emulated", "C++", 232_448, 2
    order = 0  # of a block's threads in a phase: 1 is reversed, 2 is another in each

    def __init__(self, folder: Path):
        self.folder, self.kernels = folder, _Kernels()

    def compile(self, programs: Collection[Program]) -> dict[Program, Kernel | NoKernel]:
        """As of ``Device``."""
        return self.kernels(programs, self._library, self._load)

    def _library(self, program: Program) -> Path:
        """Where the compiled program is."""
        command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O1", "-fPIC", "-shared", "-w"]
        command += os.environ.get("CXXFLAGS", "").split()
        source = program.source()
        path = self.folder / f"{hashlib.sha256(' '.join([*command, source]).encode()).hexdigest()[:16]}.so"
        if path.exists():
            return path
        made = path.with_suffix(f".{os.getpid()}")
        command += ["-x", "c++", "-", "-o", str(made)]
        try:
            done = subprocess.run(command, input=source, text=True, capture_output=True)
        except OSError as error:
            raise NoKernel(f"{command[0]}: {error.strerror}") from None
        if done.returncode:
            said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
            raise NoKernel(f"{program.title} doesn't compile: {said}")
        made.rename(path)
        return path

    def _load(self, path: Path, program: Program) -> Kernel:
        return _OnCpu(self, ctypes.CDLL(str(path)), program.layout().blocks)

    def blocks(self, program: Program) -> int:
        """As of ``Device``."""
        return self.kernels.blocks(program)

    def stream(self, first: bool = False) -> contextlib.AbstractContextManager[Any]:
        """As of ``Device``: there is one."""
        return contextlib.nullcontext()

    def event(self) -> Event:
        """As of ``Device``: all is done by now."""
        return _Done()


class _OnCpu(NamedTuple):
    """A program on a CPU."""

    device: Emulated
    library: ctypes.CDLL
    blocks: int

    def __call__(self, function: str, argument: Any, blocks: int, slices: int = 1) -> None:
        getattr(self.library, function)(argument, c_int(blocks), c_int(slices), c_int(self.device.order))


class _Done:
    def synchronize(self) -> None:
        """Nothing to wait for."""

    def wait(self) -> None:
        """Nothing to wait for."""


def unfit(program: cuda_kernel.MLPProgram, accelerator: str) -> str | None:
    """Why this process's device can't run a program, as far as can be said without compiling it. None: it can.

    Args:
        accelerator: ``trainer.accelerator`` of the run.
    """
    if accelerator == "cpu" and not environment.emulated_gpu():
        return f"trainer.accelerator={accelerator}: the cuda engine runs on GPUs, with trainer=gpu"
    try:
        here = device()
    except NoKernel as error:
        return f"the cuda engine can't run: {error}"
    if (needed := program.layout().bytes) > here.shared_bytes:
        return (
            f"width={program.width}, depth={program.depth}: the cuda engine needs {needed >> 10} KiB of shared memory, "
            f"a block of this GPU has {here.shared_bytes >> 10}"
        )
    return None

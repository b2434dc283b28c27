"""Training commands as forks of one process that has imported everything: a command then takes no seconds of imports.

``Server`` starts that process. Its forks run ``fractal_ifs.train`` as ``python -m`` does; a worker process, for which
the driver would start a Python, is a fork too, made before the driver does anything, and then runs the same words.
"""

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

SPARES = 2  # worker processes of a command, at most


class Server:
    """The process that forks commands, one at a time. ``computed`` adds up their seconds of a processor."""

    computed = 0.0

    def __init__(self, library: Path, **environment: str):
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(library)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "LD_PRELOAD": str(library), **environment},
            start_new_session=True,
        )

    def start(self, words: Sequence[str], cwd: Path, output: Path, environment: dict[str, str]) -> "Forked":
        """Begin a command; both its streams go to ``output``."""
        assert self.process.stdin
        asked = {"words": list(words), "cwd": str(cwd), "output": str(output), "environment": environment}
        self.process.stdin.write(json.dumps(asked).encode() + b"\n")
        self.process.stdin.flush()
        return Forked(self, int(self.answer(None)[0]))

    def answer(self, seconds: float | None) -> Any:
        """The next numbers that the server says; None where there are none in so many seconds."""
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return None
        return os.read(self.process.stdout.fileno(), 100).split()

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Forked:
    """A command, with as much of ``subprocess.Popen`` as is needed."""

    def __init__(self, server: Server, pid: int):
        self.server, self.pid = server, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and (said := self.server.answer(0)):
            self.returncode = int(said[0])
            self.server.computed += float(said[1])
        return self.returncode


def serve(begin: Any) -> None:
    """Fork a command for each line that is read; say its process, then its exit status and how long it computed.

    The seconds are of this process's clock of the processor, with those of its worker processes.
    """
    for line in iter(sys.stdin.buffer.readline, b""):
        process = os.fork()
        if not process:
            return _command(json.loads(line), begin)
        os.write(1, b"%d\n" % process)
        _, status, used = os.wait4(process, 0)
        os.write(1, b"%d %f\n" % (os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime))
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _command(asked: dict[str, Any], begin: Any) -> None:
    os.setsid()
    os.chdir(asked["cwd"])
    output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((nothing, output, output)):
        os.dup2(file, number)
    os.close(output)
    os.close(nothing)
    os.environ.update(asked["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if {"engine=torch", "trainer=ddp", "model=cnn"} & {*asked["words"]}:
        _workers_are_forks(begin)
    begin(0)
    sys.argv = ["train.py", *asked["words"]]
    runpy.run_module("fractal_ifs.train", run_name="__main__", alter_sys=True)


def _workers_are_forks(begin: Any) -> None:
    """Let ``multiprocessing`` take forks that are made now for the processes that it would start."""
    from multiprocessing import util

    spares: list[tuple[int, socket.socket]] = []
    original = util.spawnv_passfds
    for number in range(SPARES):
        ours, theirs = socket.socketpair()
        if not (process := os.fork()):
            for _, other in spares:
                other.close()
            ours.close()
            _spare(theirs, number + 1, begin)
        theirs.close()
        spares.append((process, ours))

    def spawn(path: Any, words: Any, files: Any) -> int:
        if not spares or not any(b"spawn_main" in os.fsencode(word) for word in words):
            return original(path, words, files)
        process, ours = spares.pop(0)
        blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        said = [[os.fsdecode(word) for word in words], sorted(files), blocked, dict(os.environ)]
        with ours:
            socket.send_fds(ours, [json.dumps(said).encode()], sorted(files))
        return process

    util.spawnv_passfds = spawn


def _spare(theirs: socket.socket, number: int, begin: Any) -> None:
    """A worker process. It ends at once where its driver doesn't need it, or ends before it does."""
    every = signal.valid_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, every)
    told, received, _, _ = socket.recv_fds(theirs, 1 << 20, 16)
    if not told:
        os._exit(0)
    words, wanted, blocked, environment = json.loads(told)
    theirs.close()
    high = [os.dup2(file, 500 + place) for place, file in enumerate(received)]
    for file in received:
        os.close(file)
    for file, place in zip(high, wanted, strict=True):
        os.dup2(file, place)
        os.set_inheritable(place, True)
        os.close(file)
    os.environ.update(environment)
    begin(number)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    place = words.index("-c")
    sys.argv = ["-c", *words[place + 2 :]]
    status = 1
    try:
        exec(words[place + 1], {"__name__": "__main__"})
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(bool(error.code))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def imported() -> None:
    """Import everything that a command does, but for the door, which each fork runs itself."""
    import hydra_plugins

    for module in (
        *("antlr4.LL1Analyzer", "hydra._internal.hydra", "pandas", "torch._dynamo", "wandb", "yaml"),
        *("fractal_ifs.api", "fractal_ifs.config.session", "fractal_ifs.help.train", "fractal_ifs.runs.layerwise"),
        *(f"fractal_ifs.engines.{name}" for name in ("conv", "native", "stacked")),
        *(f"fractal_ifs.sweeps.{name}" for name in ("sweep", "table")),
        *(each.name for each in pkgutil.walk_packages(hydra_plugins.__path__, "hydra_plugins.")),
    ):
        importlib.import_module(module)
    OverridesParser.create().parse_overrides(["a=1,2", "b='c d'", "+e=[f]"])  # it builds tables at its first use


if __name__ == "__main__":
    begin = ctypes.CDLL(sys.argv[1]).faults_begin
    imported()
    gc.freeze()  # so that a fork copies less
    serve(begin)

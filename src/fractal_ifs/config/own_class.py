"""Classes and functions of a user's own, named by a key ``_target_``. Nothing else imports a user's code.

To import a module is to run it. So a file of choices, which may come from anywhere, can name code but never bring it:

- the module must be importable without us, because it is installed or its directory is named in PYTHONPATH. Neither
  ``hydra.searchpath`` nor the directory that a command is called in counts for that;
- code that lies in a directory of choices is imported only where PYTHONPATH names that directory itself;
- the module is looked at before it is imported: it must have the name that is asked for;
- what is imported must be of the kind that the key takes, before anything calls it.

Whatever the process has imported already is taken as it is.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import os
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module, util
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, cast

from fractal_ifs.config.own import Own
from fractal_ifs.errors import ConfigError, message, short

ON_THE_PATH = "must be importable: installed, or in a directory that PYTHONPATH names"


def check_named(key: str, target: str, folders: Iterable[Path] = ()) -> None:
    """Raises ConfigError unless a module on Python's path has what ``target`` names. Imports nothing.

    Args:
        key: the full name of the key, for messages.
        target: ``MODULE.NAME``, the module with its packages.
        folders: directories of choices of the user's own.
    """
    told = f"{key}={short(target)}"
    module, _, name = target.rpartition(".")
    if module in sys.modules:
        return
    spec = _spec(module)
    if spec is None:
        raise ConfigError(f"{told}: there is no module {module}; it {ON_THE_PATH}")
    if spec.origin is None or not os.path.isabs(spec.origin):  # a folder without __init__.py, or built in
        return
    file = Path(spec.origin)
    root = file.parents[module.count(".") + (file.name == "__init__.py")].resolve()
    here = {Path(place or ".").resolve() for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place}
    if root == Path.cwd().resolve() and root not in here:
        raise ConfigError(f"{told}: {file} lies where the command is called, which isn't enough; it {ON_THE_PATH}")
    for folder in (folder.resolve() for folder in folders):
        if file.resolve().is_relative_to(folder) and not root.is_relative_to(folder):
            raise ConfigError(f"{told}: {file} lies in a directory of choices, {folder}: PYTHONPATH must name that one")
    if not _has(spec, name):
        raise ConfigError(f"{told}: {file} has no {name}")


def resolve(key: str, target: str, kind: type | None = None) -> Any:
    """The class that ``target`` names, which must be a subclass of ``kind``; without ``kind``, the function.

    Imports its module. Raises ConfigError.
    """
    check_named(key, target)
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name)
        source_digest(target)  # as it is now: the file may be edited later, while the process keeps what it has read
    except (Exception, SystemExit) as error:  # a module may raise anything as it is imported
        raise ConfigError(f"{key}={short(target)}: can't be imported ({short(message(error), 200)})") from None
    if kind is None and callable(found) and not isinstance(found, type):
        return found
    if kind is None or not (isinstance(found, type) and issubclass(found, kind)):
        allowed = f"a class of {kind.__module__}.{kind.__name__}" if kind else "a function"
        raise ConfigError(f"{key}={short(target)}: must be {allowed}")
    if inspect.isabstract(found):
        lacks = ", ".join(sorted(cast(Any, found).__abstractmethods__))
        raise ConfigError(f"{key}={short(target)}: must have what {kind.__name__} asks of a class; lacks {lacks}")
    return cast(Any, found)


def check_arguments(told: str, found: Any, own: Own) -> None:
    """Raises ConfigError for keys that a class or function doesn't take, and for those that it lacks.

    Args:
        told: how a message begins.
    """
    try:
        parameters = inspect.signature(found).parameters
    except (TypeError, ValueError):
        return
    kinds = inspect.Parameter
    by_name = (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    named = {name: each for name, each in parameters.items() if each.kind in by_name}
    any_key = any(each.kind == kinds.VAR_KEYWORD for each in parameters.values())
    if "generator" in own.OF_THE_RUN and "generator" not in named and not any_key:
        raise ConfigError(f"{told}: __init__ must take generator, which draws the initial weights")
    names = [name for name in named if name not in own.OF_THE_RUN]
    for key, value in own.keys.items():
        if key not in named and not any_key:
            near = difflib.get_close_matches(key, names, 1, 0.6)
            hint = f"did you mean {own.PREFIX}{near[0]}?" if near else f"{own.target} has {', '.join(names) or 'none'}"
            raise ConfigError(f"{own.PREFIX}{key}={short(value)}: there is no such key; {hint}")
    for name in names:
        if named[name].default is kinds.empty and name not in own.keys:
            raise ConfigError(f"{own.PREFIX}{name}: must be given, {own.target} has no default for it")


@contextmanager
def telling(told: str, what: str) -> Generator[None]:
    """Within: an exception of a user's code becomes a ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{told}: {what} failed ({short(message(error), 300)})") from None


def once(cached: Any, found: Any, *others: Any) -> Any:
    """What a cached function says of something of a user's own; it is asked again each time for what has no hash."""
    return cached(found, *others) if found.__hash__ is not None else cached.__wrapped__(found, *others)


def source_digest(target: str) -> str | None:
    """12 hex digits, the hash of the file in which ``target`` is defined; None where it has none.

    Of a module that is imported it is that of the file when it was first asked for: what runs is what was read then.
    """
    module = target.rpartition(".")[0]
    spec = _spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    if module not in sys.modules:
        return file_digest(spec.origin)
    if (known := _IMPORTED.get(module)) is None or known[0] is not spec:  # another one, as of importlib.reload
        known = _IMPORTED[module] = spec, file_digest(spec.origin)
    return known[1]


_IMPORTED: dict[str, tuple[ModuleSpec, str | None]] = {}  # for each module, the hash of its file


def file_digest(path: str) -> str | None:
    """12 hex digits, the hash of a file; None where it can't be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError:
        return None


def _spec(module: str) -> ModuleSpec | None:
    """Where Python would find a module. Its packages are not imported for that, as ``util.find_spec`` would."""
    if module in sys.modules:
        return getattr(sys.modules[module], "__spec__", None)
    path: Any = None
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for number in range(1, len(parts) + 1):
        name = ".".join(parts[:number])
        try:
            found = (finder.find_spec(name, path, None) for finder in sys.meta_path)
            spec = util.find_spec(name) if number == 1 else next((each for each in found if each), None)
        except (ImportError, ValueError, AttributeError, OSError):
            return None
        if spec is None:
            return None
        path = spec.submodule_search_locations
        if path is None and number < len(parts):
            return None
    return spec


def _has(spec: ModuleSpec, name: str) -> bool:
    """Whether the source of a module binds a name; True where it can't be told without importing it."""
    get_source = getattr(spec.loader, "get_source", None)
    try:
        source = get_source(spec.name) if get_source else None
        return source is None or _binds(source, name)
    except (ImportError, OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # told as it is imported
        return True


@lru_cache(maxsize=64)
def _binds(source: str, name: str) -> bool:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return True
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.asname or alias.name for alias in node.names]
            if name in names or "*" in names:
                return True
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store):
            return True
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            return True
    return False

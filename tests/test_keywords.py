"""The keywords of ``run`` and ``sweep`` as an editor knows them are the typed keys. Written anew by

python tests/test_keywords.py
"""

import inspect
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fractal_ifs.config import keywords
from fractal_ifs.config.run import GROUPS, KINDS, RunConfig
from fractal_ifs.config.words import SEVERAL

PATH = Path(keywords.__file__)
BEGIN = "# Written by tests/test_keywords.py from the typed keys.\n"
# What has no typed key: choices of files that set keys of the run, keys of a fractal's and a curve's YAML, and Hydra's.
BESIDES = {"budget": "str", "protocol": "str", "experiment": "str | None", "hydra__searchpath": "Sequence[str]"}
OF_SWEEPS = {"hydra__sweeper": "str"}
BESIDES |= {"fractal__depth": "int", "curve__weights": "Sequence[float]", "curve__last": "int"}


def written(*hints: Any) -> str:
    """The union of some types, as it is written."""
    found: list[str] = []
    words: list[str] = []
    for hint in hints:
        if get_origin(hint) in (Union, types.UnionType):
            found += written(*get_args(hint)).split(" | ")
        elif get_origin(hint) is Literal:
            words += [repr(value).replace("'", '"') for value in get_args(hint)]
        elif get_origin(hint) in (tuple, Sequence):
            found.append(f"Sequence[{written(get_args(hint)[0])}]")
        elif get_origin(hint) is Mapping:
            found.append("Mapping[str, Any]")
        else:
            found.append("None" if hint is type(None) else hint.__name__)
    literal = [f"Literal[{', '.join(dict.fromkeys(words))}]"] if words else []
    return " | ".join([*literal, *dict.fromkeys(found)])


def keys() -> dict[str, str]:
    """Each keyword with its type."""
    found: dict[str, list[Any]] = {name: [str, int, *([Sequence[str]] * (name in SEVERAL))] for name in GROUPS}
    for kind in KINDS:
        hints = get_type_hints(kind)
        for field in fields(kind):
            name = f"{kind.PREFIX}{field.name}".replace(".", "__")
            if field.metadata and not (kind is not RunConfig and field.name == "name"):
                found.setdefault(name, []).append(hints[field.name])
    return {name: written(*each) for name, each in found.items()} | BESIDES


def classes() -> str:
    """The two classes, as they stand in the file."""
    lines = [BEGIN.rstrip(), "class Values(TypedDict, total=False):", '    """A value for each key."""', ""]
    lines += [f"    {name}: {kind}" for name, kind in keys().items()]
    lines += ["", "", "class Lists(TypedDict, total=False):", '    """A value for each key, or several."""', ""]
    for name, kind in (keys() | OF_SWEEPS).items():
        some, none = kind.removesuffix(" | None"), " | None" * kind.endswith("None")
        several = "" if name.startswith("hydra__") else f" | Sequence[{kind}]"
        between = " | Interval" * (some in ("int", "float"))
        lines.append(f"    {name}: {some}{several}{between}{none}")
    return "\n".join(lines) + "\n"


def content() -> str:
    """The file as it should be, in the layout of the project."""
    text = PATH.read_text().partition(BEGIN)[0] + classes()
    command = [sys.executable, "-m", "ruff", "format", "-", f"--stdin-filename={PATH}"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=PATH.parents[3]).stdout


def test_the_keywords_are_the_typed_keys():
    assert list(keywords.Values.__annotations__) == list(keys())
    assert list(keywords.Lists.__annotations__) == [*keys(), *OF_SWEEPS]
    space = {"Sequence": Sequence, "Mapping": Mapping, "Literal": Literal, "Any": Any}
    for name, kind in keys().items():
        assert get_type_hints(keywords.Values, space)[name] == eval(kind, space), f"{name}: run {__file__}"


def test_a_notebook_completes_them():
    from fractal_ifs import run, sweep

    for function in (run, sweep):
        parameters = inspect.signature(function).parameters
        assert next(iter(parameters)) == "directory"
        assert {*keys()} < {*parameters}
        assert list(parameters)[-1] == "keywords"


if __name__ == "__main__":
    PATH.write_text(content())

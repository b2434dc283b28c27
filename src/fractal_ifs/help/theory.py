"""What ``fractal-ifs theory`` takes, and its help."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from fractal_ifs.files import CONF
from fractal_ifs.help.layout import Examples, program
from fractal_ifs.help.takes import Key, Keys, Takes, choices, content, shapes, typed, written
from fractal_ifs.plotting.keys import Looks

THEOREMS = Path(__file__).parents[1] / "theorems"
EXAMPLES: Examples = (
    ("all", "every statement, in about a minute of one core"),
    ("theorem1 theorem3 fractal=vicsek shrink=0.9", "two of them, on another fractal, its images set apart"),
    ("theorem5 theorem5.delta=0.2", "with another value of a statement's own key"),
    ("-m theorem1 fractal=cantor,cantor2d_quarter", "on two fractals, one after the other"),
    ("experiment=conjecture", "Conjecture 1 on a thousand random distributions"),
)


def takes() -> Takes:
    """The statements, groups, keys and options of the command.

    Read from the sources of the statements: importing them takes seconds, for they import torch.
    """
    source = ast.parse((THEOREMS / "statements.py").read_bytes())
    table = next(
        node.value for node in source.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    )
    names = [str(ast.literal_eval(name)) for name in table.keys if name]
    sources = {name: ast.parse((THEOREMS / f"{name}.py").read_bytes()) for name in names}
    words = {"all": "all of these but conjecture1"}
    words |= {name: (ast.get_docstring(tree) or "").splitlines()[0].split(": ", 1)[1] for name, tree in sources.items()}
    values, docs = content(CONF / "theory.yaml"), _docs(source)
    keys = [Key(name, written(values[name]), doc) for name, doc in docs.items() if name in values]
    keys[0] = keys[0]._replace(values=("all", *names))
    keys += typed(Looks, CONF / "theory.yaml")
    sections = [
        Keys(f"keys of {name}", [Key(f"{name}.{key}", written(values[name][key]), doc) for key, doc in docs.items()])
        for name, tree in sources.items()
        if (docs := _docs(tree))
    ]
    return Takes(choices(CONF / "theory.yaml"), [Keys("keys", keys), *sections, *shapes()], words=words)


def _docs(source: ast.Module) -> dict[str, str]:
    """The keys of the settings in a source: the first argument of ``key`` for each field."""
    found: dict[str, str] = {}
    for node in source.body:
        for field in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(field, ast.AnnAssign) and isinstance(field.value, ast.Call) and field.value.args:
                found[ast.unparse(field.target)] = ast.literal_eval(field.value.args[0])
    return found


def screen(arguments: Sequence[str] = ()) -> str:
    """The help, or where keys or groups are named among the arguments, the help on these. Raises ConfigError."""
    text = """
        Try the paper's statements, each as a construction that runs. It prints what each bounds and what was measured,
        and leaves theory.json and pictures below outputs/theory/, in a directory named by the other words: a command
        that differs from the last in figures, formats, width, font or dpi alone draws from its theory.json, in seconds.
        The exit status is 1 where a statement doesn't hold.
        """
    usage = "[-m] [STATEMENT ...] [KEY=VALUE ...]"
    return takes().screen(program("theory"), usage, text, EXAMPLES, arguments)

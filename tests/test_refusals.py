"""Whatever value a key is given, it is accepted with its type and within its bounds, or refused in one line.

Each door's own checking, in this process, without training, drawing or asking anybody: for every key that a door's help
names, and those of Hydra's own, some values that nobody means and some that hypothesis makes up.
"""

import contextlib
import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st

from fractal_ifs import plot
from fractal_ifs.config.compose import accepted, resolved
from fractal_ifs.config.fast_compose import Composer
from fractal_ifs.config.messages import refusals
from fractal_ifs.config.plugins import check_plugin_keys
from fractal_ifs.config.session import VERSION_BASE, borrowed
from fractal_ifs.config.words import quoted
from fractal_ifs.errors import ConfigError
from fractal_ifs.files import CONF
from fractal_ifs.report import __main__ as report
from fractal_ifs.sweeps.grid import Grid
from fractal_ifs.sweeps.outward import Outward
from fractal_ifs.sweeps.packing import Packing
from fractal_ifs.sweeps.rungs import Halving
from fractal_ifs.sweeps.slurm_settings import SlurmSettings
from fractal_ifs.theorems.statements import problems

TINY = ["steps=20", "eval_every=10", "width=4", "depth=1", "data.train_size=200", "data.test_size=50", "logger=none"]
IMAGES = [
    "data=cifar10",
    "model=cnn",
    "steps=20",
    "eval_every=10",
    "width=4",
    "depth=1",
    "batch_size=10",
    "logger=none",
]
# What the keys of a title go with: beginnings of titles as the helps have them.
CHOSEN = {
    "keys of data=cifar10": IMAGES,
    "keys of model=cnn": IMAGES,
    "keys of logger=wandb": [*TINY[:-1], "logger=wandb"],
    "keys of a fractal": [*TINY, "fractal=custom", "fractal.ratio=1/3", "fractal.offsets=[[-2/3,0],[2/3,0]]"],
}
LAUNCHERS: dict[str, type[Packing | SlurmSettings | Grid | Halving | Outward]] = {
    "keys of a sweep on this machine": Packing,
    "keys of a sweep in Slurm": SlurmSettings,
    "keys of a sweep, hydra/sweeper=checked": Grid,
    "keys of a sweep that prunes": Halving,
    "keys of a sweep that searches": Outward,
}
CHECKED = ["check x.csv -n", "check x.csv --width", "check x.csv --seed"]
OF_HYDRA = [
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir", "hydra.verbose", "hydra.mode"),
    *("hydra.searchpath", "hydra.job.name", "hydra.job.chdir", "hydra.job.env_set", "hydra.job.env_copy"),
    *("hydra.job.config.override_dirname.kv_sep", "hydra.job.config.override_dirname.exclude_keys", "hydra.callbacks"),
    *(
        "hydra.launcher",
        "hydra.sweeper",
        "hydra.job_logging",
        "hydra.hydra_logging",
        "hydra.job.id",
        "hydra.runtime.cwd",
    ),
    *("hydra/launcher", "hydra/sweeper", "hydra.overrides", "hydra.nothing", "hydra.launcher.nothing", "nothing"),
]

# Words as they stand behind KEY= on a command line.
ODD = [
    *(
        "null",
        "",
        "[]",
        "{}",
        "true",
        "-1",
        "0",
        "0.5",
        "1e30",
        "-1e400",
        "nan",
        "-inf",
        "text",
        "'a b/c'",
        "ü∞漢",
        "~",
    ),
    *(
        "1/0",
        "%s",
        "a=b",
        "a:b",
        "a,b",
        "[1,2]",
        "[nan]",
        "[[1],[x,null]]",
        "{a:1}",
        "{a:{b:[c]}}",
        "[{a:1}]",
        "x" * 5000,
    ),
    *(
        "99999999999999999999",
        "1" * 400,
        "${nothing}",
        "${oc.env:NOT_SET}",
        "${x",
        "${seed}",
        "${now:%Y}",
        "???",
        '"',
        "'",
    ),
    *("'a\nb'", "\t", "\x1b[31m", "\u202e", "\udcff", "/dev/null/x", "../../x", "[", "}", "range(3)", "glob(*)"),
    *("choice(1,2)", "1,2", "interval(0,1)", "int(x)", "'it\\'s'", "$(x)", "\\", "9" * 5000, "[" * 200),
]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)  # no argument has a NUL in it
ANY = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    TEXT,
    TEXT.map(quoted),
    st.lists(st.one_of(st.integers(), st.floats()), max_size=4).map(lambda values: str(values).replace(" ", "")),
    st.sampled_from(ODD),
)


def told(arguments: Sequence[str], check: Callable[[], None]) -> Any:
    """How a door that is given some arguments refuses them; None where its checking ends well."""
    before = sys.argv
    sys.argv = ["door", *arguments]
    try:
        with refusals():
            check()
    except SystemExit as error:
        return error.code
    finally:
        sys.argv = before
    return None


def check_line(word: str, line: Any) -> None:
    """A refusal is one line of some length, which names the key of the word, or its group: fractal=NAME has no maps."""
    if line is None:
        return
    said = f"{word[:99]!r}: {line!r}"
    assert isinstance(line, str), said
    assert line.startswith("error: "), said
    assert line.isprintable(), said
    assert len(line) < 400, said
    assert "Traceback" not in line, said
    key = word.partition("=")[0]
    assert key in line or re.search(rf"\b{key.split('.')[0]}[.:=]", line), said


def of_type(value: Any, hint: Any) -> bool:
    """Whether a value is of a key's type: numbers finite, lists tuples."""
    kinds = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(of_type(value, kind) for kind in kinds)
    if get_origin(hint) is Literal:
        return value in kinds
    if get_origin(hint) in (tuple, Sequence):
        return isinstance(value, Sequence) and not isinstance(value, str)
    if get_origin(hint) is Mapping:
        return isinstance(value, Mapping)
    if hint in (int, float):
        return type(value) is hint and abs(value) < float("inf")
    return isinstance(value, hint)


def within(kind: Any) -> bool:
    """Whether every key of a group is of its type, and within its bounds."""
    hints = get_type_hints(type(kind))
    for field in dataclasses.fields(kind):
        value, limits = getattr(kind, field.name), field.metadata
        if not of_type(value, hints[field.name]):
            return False
        for number in value if isinstance(value, tuple) else [value]:
            if isinstance(number, int | float) and not isinstance(number, bool):
                least, above, most, below = (limits.get(name) for name in ("least", "above", "most", "below"))
                if (least is not None and number < least) or (above is not None and number <= above):
                    return False
                if (most is not None and number > most) or (below is not None and number >= below):
                    return False
        if dataclasses.is_dataclass(value) and not within(value):
            return False
    return True


@lru_cache
def composer(name: str, base: tuple[str, ...]) -> Composer:
    """Composes configs of conf/NAME.yaml, with some words that all of them have."""
    loader = GlobalHydra.instance().config_loader()
    return Composer(loader, loader.load_configuration(name, list(base), RunMode.MULTIRUN))


@pytest.fixture(scope="module", autouse=True)
def session():
    with borrowed(), initialize_config_dir(str(CONF), **VERSION_BASE):
        yield
        composer.cache_clear()


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    (tmp_path / "below" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "below" / "here")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")


def parts(verb: str) -> dict[str, list[str]]:
    """The keys of a door by their titles, as its help has them."""
    return {title: [key.name for key in keys] for title, keys in import_module(f"fractal_ifs.help.{verb}").takes().keys}


# How many values of each kind are tried with every key of a door.
EACH = pytest.mark.parametrize("each", [1, pytest.param(4, marks=pytest.mark.slow)])


def tried(keys: Sequence[str], try_one: Callable[[str], None], each: int) -> None:
    """Try some odd values with every key, and as many that hypothesis draws."""
    for number, key in enumerate(keys):
        for place in range(each):
            try_one(f"{key}={ODD[(7 * number + 11 * place) % len(ODD)]}")

    @settings(max_examples=each * len(keys), derandomize=True, database=None)
    @given(st.sampled_from(keys), ANY)
    def draw(key: str, value: str) -> None:
        try_one(f"{key}={value}")

    draw()


@EACH
@pytest.mark.parametrize("title", [title for title in parts("train") if not title.startswith(tuple(LAUNCHERS))])
def test_a_key_of_train_is_accepted_or_refused_in_one_line(title, each):
    base = next((words for beginning, words in CHOSEN.items() if title.startswith(beginning)), TINY)
    compose = composer("config", tuple(base))

    def check(word: str) -> None:
        check_plugin_keys([word], "fused", "checked")
        assert within(accepted(resolved(compose([word]))))

    tried(parts("train")[title], lambda word: check_line(word, told([*base, word], lambda: check(word))), each)


@pytest.mark.parametrize("title", LAUNCHERS)
def test_a_key_of_a_launcher_is_accepted_or_refused_in_one_line(title):
    """Its value as Hydra's grammar reads it goes to the launcher's type."""
    kind = LAUNCHERS[title]
    groups = {SlurmSettings: "hydra/launcher=slurm", Halving: "hydra/sweeper=halving", Outward: "hydra/sweeper=outward"}
    base = [groups[kind]] if kind in groups else []
    whole = composer("config", tuple(base)).master.hydra
    usual = {**(whole.sweeper if kind in (Grid, Halving, Outward) else whole.launcher)}
    del usual["_target_"]
    [keys] = [keys for name, keys in parts("train").items() if name.startswith(title)]

    def check(word: str) -> None:
        check_plugin_keys([*base, word], "fused", "checked")
        [override] = OverridesParser.create().parse_overrides([word])
        value, name = override.value(), override.key_or_group.split(".")[-1]
        if not (isinstance(value, str) and "${" in value):
            assert within(kind.parse({**usual, name: value}))

    tried(keys, lambda word: check_line(word, told(["-m", *base, word], lambda: check(word))), 8)


@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_a_key_of_hydras_is_accepted_or_refused_in_one_line(mode):
    def try_one(word: str) -> None:
        check_line(word, told([*mode, word], lambda: check_plugin_keys([word], "fused", "checked")))

    tried(OF_HYDRA, try_one, 8)


@EACH
def test_a_key_of_theory_is_accepted_or_refused_in_one_line(each):
    compose = composer("theory", ())

    def check(word: str) -> None:
        check_plugin_keys([word], "basic", "basic")
        keys, _ = problems(resolved(compose([word])))
        assert within(keys)

    keys = [key for keys in parts("theory").values() for key in keys]
    tried(keys, lambda word: check_line(word, told([word], lambda: check(word))), each)


@EACH
def test_a_key_of_plot_is_accepted_or_refused_in_one_line(each):
    def try_one(word: str) -> None:
        try:
            with contextlib.closing(plot._compose([word])) as composed:
                assert all(plot._plan(configs) for configs in composed)
        except ConfigError as error:
            check_line(word, f"error: {error}")

    tried([key for keys in parts("plot").values() for key in keys], try_one, each)


@pytest.mark.parametrize("words", ["x -o", "status", "collect x --into", "check", *CHECKED, ""])
def test_an_option_of_report_is_accepted_or_refused_in_one_line(capsys, words):
    """Nothing is there, so an accepted one is refused for that."""

    def try_one(word: str) -> None:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            report.main([*words.split(), word.partition("=")[2]])
        line = capsys.readouterr().err.rstrip("\n") if ended.value.code == 2 else ended.value.code
        check_line("", line or None)

    tried([words], try_one, 100)

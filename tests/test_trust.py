"""Files of a user's own are data: no directory of fractals can run a command, or set anything but fractals."""

import contextlib
import logging
import os
import re
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.experimental.callback import Callback

from fractal_ifs import ConfigError, run, theory
from fractal_ifs.plot import write_pictures

HYDRA_14 = not hydra.__version__.startswith("1.3")
QUICK = ["width=4", "depth=1", "steps=20", "eval_every=10", "data.train_size=200", "data.test_size=50", "logger=none"]
EVIL = "{_target_: os.system, command: mkdir evil}\n"
FRACTAL = "name: mine\ndepth: 2\nratio: 1/3\ncorners: 2/3\nd: 2\n"


def own(folder: Path, place: str, text: str) -> str:
    path = folder / "mine" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return "hydra.searchpath=[mine]"


class Mine(Callback):
    """A callback of a user's own."""

    heard: list[str] = []  # noqa: RUF012

    def on_run_start(self, config, **_):
        self.heard.append(config.fractal.name)


class Handler(logging.Handler):
    """A handler of a user's own."""

    def emit(self, record):
        pass


def function() -> None:
    os.mkdir("evil")


GROUPS = {
    "fractal callback": ("fractal/mine.yaml", f"# @package _global_\nhydra:\n  callbacks:\n    x: {EVIL}"),
    "fractal package": ("fractal/mine.yaml", f"# @package hydra.callbacks.x\n{EVIL}"),
    "second header": ("fractal/mine.yaml", f"# @package fractal\n# @package _global_\n{FRACTAL}"),
    "odd header": ("fractal/mine.yaml", f"#@package   _global_\n{FRACTAL}"),
    "defaults": ("fractal/mine.yaml", f"defaults:\n  - /hydra/callbacks/x@hydra.callbacks.x\n{FRACTAL}"),
    "other group": ("curve/mine.yaml", "defaults:\n  - override /hydra/launcher: slurm\nname: mine\ndegree: 0\n"),
    "budget": ("budget/mine.yaml", "# @package _global_\nhydra:\n  job:\n    env_set: {LD_PRELOAD: evil.so}\n"),
    "place in a group": ("budget/mine.yaml", "# @package _global_\ndata: {dir: /elsewhere}\n"),
    "group from elsewhere": ("budget/mine.yaml", "# @package _global_\nlogger: ${hydra.job.name}\n"),
    "callback": ("budget/mine.yaml", "# @package _global_\ncallbacks: {x: {_target_: mine.evil.X}}\n"),
    "logger": ("budget/mine.yaml", "# @package _global_\nlogger: {x: {_target_: mine.evil.X}}\n"),
    "network": ("protocol/mine.yaml", "# @package _global_\nmodel: {_target_: mine.evil.X}\n"),
    "place": ("budget/mine.yaml", "# @package _global_\nsweep: /elsewhere\n"),
    "overwrite": ("protocol/fractal.yaml", "# @package _global_\noverwrite: true\n"),
    "odd line": ("fractal/mine.yaml", f"# @odd line\u2028# @package _global_\n{FRACTAL}"),
    "up and out": ("fractal/mine.yaml", f"defaults:\n  - sub: ../../x\n{FRACTAL}"),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_a_file_of_a_group_sets_its_group_alone(command, tmp_path, kind):
    place, text = GROUPS[kind]
    search = own(tmp_path, place, text)
    own(tmp_path, "hydra/callbacks/x.yaml", EVIL)
    group, name = place.removesuffix(".yaml").split("/")
    words = [] if group == "protocol" else [f"{group}={name}"]
    for arguments in (
        [*words, *QUICK, search],
        ["-m", *words, "seed=1,2", *QUICK, search],
        [*words, *QUICK, "--config-d", "mine"],
        [*words, *QUICK, "-cd", "mine", "--cfg", "job"],
    ):
        line = str(command(*arguments).status)
        assert f"mine/{place}: " in line
        assert line.endswith(f"a file of {group}/ may set {group} alone")
    chosen: Any = {} if group == "protocol" else {group: name}
    for refused in (
        lambda: run(hydra__searchpath=["mine"], **chosen),
        lambda: write_pictures([*words, search]),
    ):
        with pytest.raises(ConfigError, match=f"a file of {group}/ may set {group} alone"):
            refused()
    assert not Path("evil").exists()


def test_a_linked_directory_is_checked_too(command, tmp_path):
    own(tmp_path, "x/mine.yaml", "# @package _global_\nhydra:\n  job:\n    env_set: {LD_PRELOAD: evil.so}\n")
    search = own(tmp_path, "fractal/other.yaml", FRACTAL)
    (tmp_path / "mine" / "fractal" / "sub").symlink_to("../x")
    (tmp_path / "mine" / "x" / "round").symlink_to("..")
    for words in (["--config-dir", "mine"], [search]):
        line = str(command("fractal=sub/mine", *QUICK, *words).status)
        assert line.endswith(
            "mine/fractal/sub/mine.yaml: # @package _global_: a file of fractal/ may set fractal alone"
        )


def test_a_choice_is_a_file_of_its_group(command, tmp_path):
    own(tmp_path, "x/mine.yaml", f"# @package _global_\nhydra:\n  callbacks:\n    x: {EVIL}")
    search = own(tmp_path, "fractal/other.yaml", FRACTAL)
    for words in (["fractal=../x/mine"], ["-m", "fractal=other,../x/mine"]):
        assert "fractal=../x/mine: must be the name of a file of fractal/" in str(
            command(*words, *QUICK, search).status
        )
    for refused in (
        lambda: run(fractal="../x/mine", hydra__searchpath=["mine"]),
        lambda: write_pictures(["fractal=other,../x/mine", search]),
    ):
        with pytest.raises(ConfigError, match=r"fractal=\S*\.\./x/mine\S*: must be the name of a file of fractal/"):
            refused()


@pytest.mark.parametrize("folder", ["a b", "a,b", "a'b", "[a]"])
def test_directories_of_any_name_are_checked(command, tmp_path, folder):
    own(tmp_path, "fractal/mine.yaml", f"# @package _global_\nhydra:\n  callbacks:\n    x: {EVIL}")
    (tmp_path / "mine").rename(tmp_path / folder)
    (tmp_path / "other").mkdir()
    for refused in (
        lambda: run(fractal="mine", hydra__searchpath=["other", folder]),
        lambda: write_pictures(["fractal=mine", "--config-dir", folder]),
        lambda: write_pictures(["fractal=mine", "--config-dir", folder, "hydra.searchpath=[other]"]),
        lambda: write_pictures(["fractal=mine", "-cd", "other", f"-cd={folder}"]),
    ):
        with pytest.raises(ConfigError, match="a file of fractal/ may set fractal alone"):
            refused()
    assert "a file of fractal/ may set fractal alone" in str(command("fractal=mine", "-cd", folder).status)


def test_the_directory_that_hydra_takes_is_the_one_that_is_checked(command, tmp_path):
    """Of several --config-dir it takes the last; --config-path takes the place of conf/."""
    good, bad = (tmp_path / name / "experiment" for name in ("good", "bad"))
    for folder, text in ((good, ""), (bad, f"hydra:\n  callbacks:\n    x: {EVIL}")):
        folder.mkdir(parents=True)
        (folder / "mine.yaml").write_text(f"# @package _global_\n{text}")
    words = ["--config-dir", "good", "--config-dir", "bad", "experiment=mine", *QUICK]
    assert "hydra.callbacks.x._target_=os.system" in str(command(*words).status)
    (tmp_path / "bad" / "all.yaml").write_text(f"hydra:\n  callbacks:\n    x: {EVIL}")
    words = ["--config-path", str(tmp_path / "bad"), "--config-name", "all"]
    assert "hydra.callbacks.x._target_=os.system" in str(command(*words).status)
    assert "must be the absolute path of a directory" in str(command("--config-path", "bad", "-cn", "all").status)
    assert not Path("evil").exists()


def test_what_nobody_chose_breaks_no_command(command, tmp_path):
    search = own(tmp_path, "curve/number.yaml", "defaults: 5\n")
    own(tmp_path, "curve/bool.yaml", "name: !!bool x\n")
    own(tmp_path, "curve/latin.yaml", "")
    (tmp_path / "mine" / "curve" / "latin.yaml").write_bytes("name: größe".encode("latin-1"))
    os.mkfifo(tmp_path / "mine" / "curve" / "pipe.yaml")
    assert command(*QUICK, search, "--cfg", "job").status == 0
    for name, told in (
        ("number", "defaults must be a list"),
        ("bool", "can't be read"),
        ("latin", "is not YAML, which is text in UTF-8"),
        ("pipe", "curve=pipe: must be one of"),
    ):
        line = str(command(*QUICK, search, f"curve={name}").status)
        assert told in line
        assert len(line.splitlines()) == 1


ALIASES = "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [x]\n" + "[" * 100_000, "is not YAML|at most 50 lists and mappings deep"),
        ("a: " + "[" * 100_000, "at most 50 lists and mappings deep"),
        ("a: &x [*x]\n", r"must be without references within YAML, \*x"),
        ("a: &a [x]\n" + ALIASES, r"must be without references within YAML, \*a"),
        ("#" * (1 << 20) + "#", "1048577 bytes, at most 1048576 are expected"),
    ],
)
def test_what_would_take_for_ever_is_refused_at_once(command, tmp_path, text, told):
    """Chosen or not, for Hydra might be able to read it."""
    search = own(tmp_path, "curve/mine.yaml", text)
    for words in ([], ["curve=mine"]):
        line = str(command(*QUICK, search, *words).status)
        assert re.search(rf"mine/curve/mine\.yaml.*({told})", line) or (not words and line == "0")
        assert len(line.splitlines()) == 1


def test_files_of_groups_that_set_their_group(command, tmp_path):
    search = own(tmp_path, "fractal/mine.yaml", f"# @package fractal\n{FRACTAL}")
    own(tmp_path, "fractal/more.yaml", "defaults:\n  - mine\n  - _self_\ndepth: 3\n")
    own(tmp_path, "budget/mine.yaml", "# @package _global_\nsteps: 20\neval_every: 10\n")
    words = [word for word in QUICK if not word.startswith(("steps", "eval_every"))]
    assert command("-m", "fractal=mine,more", "budget=mine", *words, search, "sweep=s").status == 0
    assert len(list(tmp_path.rglob("result.json"))) == 2


CALLS = {
    "resolved later": (
        "can't be resolved before the command begins",
        "callbacks:\n    x: ${later:${hydra:job.env_set.E}}\n",
    ),
    "another text later": (
        "hydra.job_logging.handlers.x.class=${...}: must be a class of logging.Handler",
        "job_logging:\n    handlers:\n      x: {class: '${oc.env:WHAT,logging.StreamHandler}'}\n",
    ),
    "name of a resolver": (
        "hydra.callbacks.x: ${oc.${ can't stand in files of your own",
        "callbacks:\n    x: ${oc.${hydra.job.name}:'{_target_:os.system}'}\n  job:\n    name: decode\n",
    ),
    "search space": (
        "hydra.sweeper.custom_search_space=test_trust.function: must be left out",
        "sweeper:\n    custom_search_space: test_trust.function\n",
    ),
    "stream": (
        "hydra.job_logging.handlers.console.stream=ext://test_trust.evil: must be left out",
        "job_logging:\n    handlers:\n      console: {stream: 'ext://test_trust.evil'}\n",
    ),
    "code beside the choices": (
        "hydra.callbacks.x._target_=mine.code.Mine: must be a class of",
        "callbacks:\n    x: {_target_: mine.code.Mine}\n",
    ),
    "callback": ("hydra.callbacks.x._target_=os.system", f"callbacks:\n    x: {EVIL}"),
    "function": (
        "hydra.callbacks.x._target_=test_trust.function: must be a class of hydra.experimental.callback.Callback",
        "callbacks:\n    x:\n      _target_: test_trust.function\n",
    ),
    "hidden": (
        "hydra.callbacks.x: oc.decode can't stand in files of your own",
        "callbacks:\n    x: ${oc.decode:'{_target_:os.system,command:mkdir evil}'}\n",
    ),
    "referred": (
        "hydra.callbacks.x._target_=${...}: must be a class of hydra.experimental.callback.Callback",
        "callbacks:\n    x: {_target_: '${hydra.job.name}'}\n  job:\n    name: os.system\n",
    ),
    "nested": (
        "hydra.callbacks.x.inner._target_=os.system: must be left out",
        "callbacks:\n    x:\n      _target_: test_trust.Mine\n      inner: {_target_: os.system, command: mkdir}\n",
    ),
    "relative": ("hydra.callbacks.x._target_=..foo: must be a class of", "callbacks:\n    x: {_target_: ..foo}\n"),
    "broken": ("x._target_=broken.Mine: must be a class", "callbacks:\n    x: {_target_: broken.Mine}\n"),
    "ending": ("x._target_=ending.Mine: must be a class", "callbacks:\n    x: {_target_: ending.Mine}\n"),
    "launcher": ("hydra.launcher._target_=os.system", "launcher:\n    _target_: os.system\n"),
    "sampler": (
        "hydra.sweeper.params.x._target_=os.system: must be left out",
        "sweeper:\n    params:\n      x: {_target_: os.system}\n",
    ),
    "handler": (
        "hydra.job_logging.handlers.x.class=os.system: must be a class of logging.Handler",
        "job_logging:\n    handlers:\n      x: {class: os.system, command: mkdir evil}\n",
    ),
    "through logging": (
        "hydra.hydra_logging.handlers.x.()=logging.os.system",
        "hydra_logging:\n    handlers:\n      x: {(): logging.os.system, command: mkdir evil}\n",
    ),
}


@pytest.mark.parametrize("kind", CALLS)
def test_not_even_an_experiment_calls_anything(command, monkeypatch, tmp_path, kind):
    told, text = CALLS[kind]
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "ending.py").write_text("raise SystemExit(0)\n")
    own(tmp_path, "code.py", "import os\nos.mkdir('evil')\nfrom test_trust import Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    search = own(tmp_path, "experiment/mine.yaml", f"# @package _global_\nhydra:\n  {text}")
    own(tmp_path, "all.yaml", f"defaults:\n  - config\n  - _self_\nhydra:\n  {text}")
    for arguments in (
        [*QUICK, "experiment=mine", search],
        ["-m", *QUICK, "seed=1,2", "experiment=mine", "--config-dir", "mine"],
        ["--config-dir", "mine", "-cn", "all", *QUICK],
    ):
        assert told in str(command(*arguments).status)
    assert not Path("evil").exists()


def test_each_swept_experiment_is_looked_at(command, tmp_path):
    search = own(tmp_path, "experiment/good.yaml", "# @package _global_\nlr: 1e-3\n")
    own(
        tmp_path, "experiment/evil.yaml", f"# @package _global_\nhydra:\n  job_logging:\n    handlers:\n      x: {EVIL}"
    )
    words = ["-m", *QUICK, "experiment=good,evil", search]
    for more in ([], ["hydra/launcher=basic", "hydra/sweeper=basic"]):
        assert "hydra.job_logging.handlers.x._target_=os.system" in str(command(*words, *more).status)
    assert not Path("evil").exists()


def test_callbacks_and_handlers_of_ones_own_may_be_called(command, tmp_path):
    callbacks = "callbacks:\n    x:\n      _target_: test_trust.Mine\n"
    handlers = "job_logging:\n    handlers:\n      x: {class: test_trust.Handler}\n"
    search = own(tmp_path, "experiment/mine.yaml", f"# @package _global_\nhydra:\n  {callbacks}  {handlers}")
    Mine.heard.clear()
    with pytest.warns(UserWarning, match="_execution_whitelist_") if HYDRA_14 else contextlib.nullcontext():
        assert command(*QUICK, "experiment=mine", search).status == 0
    assert Mine.heard == ["cantor2d"]


def test_a_theory_is_checked_too(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    own(tmp_path, "all.yaml", f"defaults:\n  - theory\n  - _self_\nhydra:\n  callbacks:\n    x: {EVIL}")
    monkeypatch.setattr("sys.argv", ["theory", "-cn", "all", "--config-dir=mine"])
    with pytest.raises(SystemExit, match=r"error: hydra\.callbacks\.x\._target_=os\.system: must be a class"):
        theory.main()
    assert not Path("evil").exists()

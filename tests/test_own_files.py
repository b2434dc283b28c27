"""Files of a user's own that Hydra can't use are told in one line, with the file, in every command."""

import json

import pytest

from fractal_ifs import ConfigError, run
from fractal_ifs.config.compose import compose
from fractal_ifs.config.own_files import fault
from fractal_ifs.files import CONF
from fractal_ifs.help.options import options_and_words
from fractal_ifs.plot import configs, write_pictures

QUICK = ["width=4", "depth=1", "steps=20", "eval_every=10", "data.train_size=200", "data.test_size=50", "logger=none"]

FAULTY = {
    "number": ("defaults:\n  - override /curve: 4\n", "override /curve: 4 must be quoted in a list of defaults, '4'"),
    "list": ("defaults:\n  - override /curve: [1]\n", "override /curve: 1 must be quoted in a list of defaults, '1'"),
    "mapping": ("defaults: {curve: 1}\n", "defaults must be a list"),
    "bracket": ("lr: [1e-3\nwidth: 3\n", "is not YAML (expected ',' or ']', but got ':')"),
    "tab": ("\tlr: 1e-3\n", "is not YAML (found character"),
    "twice": ("lr: 1e-3\nlr: 2e-3\n", "is not YAML (found duplicate key lr)"),
    "latin": ("# größe\n", "is not YAML, which is text in UTF-8"),
    "items": ("- lr\n", "must be keys with values"),
}


@pytest.fixture
def mine(tmp_path):
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    for name, (text, _) in FAULTY.items():
        encoding = "latin-1" if name == "latin" else "utf-8"
        (folder / f"{name}.yaml").write_text(f"# @package _global_\n{text}", encoding)
    (folder / "bare.yaml").write_text("lr: 1e-3\n")
    (folder / "leads.yaml").write_text("# @package _global_\ndefaults:\n  - bracket\n")
    (folder / "wide.yaml").write_text("# @package _global_\nwidth: abc\n")
    (folder / "strange.yaml").write_text("# @package _global_\nsize: 1\n")
    return folder


@pytest.mark.parametrize("option", ["hydra.searchpath=[mine]", "--config-dir=mine"])
@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_is_told_with_its_file(command, mine, name, option):
    """Of the file that is used, though all others there are faulty too."""
    for many in ([], ["-m"]):
        line = str(command(*many, *QUICK, f"experiment={name}", option).status)
        assert line.startswith("error: ")
        assert f"mine/experiment/{name}.yaml" in line
        assert FAULTY[name][1] in line
        assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("bare", "mine/experiment/bare.yaml: must begin with the line # @package _global_"),
        ("leads", "mine/experiment/bracket.yaml, line 3: is not YAML"),
        ("wide", "experiment=wide sets width=abc: must be a whole number >= 1"),
        ("strange", "experiment=strange: sets size, which is not a key of this command"),
    ],
)
def test_other_faults_of_an_experiment(command, mine, name, told):
    line = str(command(*QUICK, f"experiment={name}", "hydra.searchpath=[mine]").status)
    assert told in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("experiment=tab", "experiment/tab"),
        ("-m experiment=wide,tab", "experiment/tab"),
        ("-m experiment=glob(tab*)", "experiment/tab"),
        ("experiment=leads", "experiment/bracket"),
        ("experiment=sets", "curve/1x"),
        ("-cn whole", "curve/1x"),
        ("curve=tab width=x", None),  # tab.yaml is an experiment
        ("experiment=wide width=1", None),
        ("data.dir=tab lr=number", None),
    ],
)
def test_the_file_that_the_words_lead_to_takes_the_blame(mine, words, name):
    (mine.parent / "curve").mkdir()
    for stem in ("1", "1x"):
        (mine.parent / "curve" / f"{stem}.yaml").write_text("\tname: x\n")
    (mine / "sets.yaml").write_text("# @package _global_\ndefaults:\n  - override /curve: 1x\n")
    (mine.parent / "whole.yaml").write_text("defaults:\n  - config\n  - curve@x: ['1', 1x]\n  - _self_\n")
    options, others = options_and_words(words.split())
    found = fault([*options, *others], [mine.parent])
    assert (found or "").partition(".yaml")[0] == (str(mine.parent / name) if name else "")


def test_a_text_of_another_is_told_on_one_short_line(mine):
    (mine / "long.yaml").write_text("# @package _global_\ndefaults:\n  - curve: " + "7" * 4000 + "\n")
    (mine / "control.yaml").write_text("# @package _global_\n&" + "\N{RIGHT-TO-LEFT OVERRIDE}x" * 900 + "\n")
    for name in ("long", "control"):
        line = fault([f"experiment={name}"], [mine.parent]) or ""
        assert f"experiment/{name}.yaml" in line
        assert line.isprintable()
        assert len(line) < len(str(mine)) + 400


def test_a_fault_of_a_sweep_is_told_once(command, mine):
    words = ["-m", *QUICK, "experiment=number,tab", "seed=1,2", "hydra.searchpath=[mine]"]
    [line] = str(command(*words).status).splitlines()
    assert line.endswith("mine/experiment/number.yaml: override /curve: 4 must be quoted in a list of defaults, '4'")


def test_pictures_and_run_tell_them_too(mine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (mine.parent / "fractal").mkdir()
    (mine.parent / "fractal" / "odd.yaml").write_text("ratio: [1/3\n")
    for draw in (
        lambda: write_pictures(["fractal=odd", "hydra.searchpath=[mine]"]),
        lambda: run(fractal="odd", hydra__searchpath=["mine"]),
    ):
        with pytest.raises(ConfigError, match=r"mine/fractal/odd\.yaml, line 2: is not YAML"):
            draw()


def test_plot_takes_choices_of_all_directories_that_it_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, name in (("a,b", "one"), ("p 2", "two")):
        (tmp_path / folder / "curve").mkdir(parents=True)
        (tmp_path / folder / "curve" / f"{name}.yaml").write_text("name: mine\ndegree: 0\n")
    for words in (
        ["--config-dir", "a,b", "--config-dir", "p 2"],
        ["hydra.searchpath=['p 2']", "-cd=a,b"],
        ["hydra.searchpath=['p 2','a,b']"],
        ["hydra.searchpath=['p 2']", "hydra.searchpath=['a,b']"],
    ):
        assert configs(["curve=one,two", *words]).count("degree: 0") == 2


@pytest.mark.parametrize("words", ["{0}", "-m {0},vicsek", "-m fractal=glob(car*)"])
def test_a_choice_of_the_packages_name_is_not_passed_over(command, mine, words):
    """Hydra takes the package's, so a copy that was edited would change nothing."""
    (mine.parent / "fractal").mkdir()
    (mine.parent / "fractal" / "carpet.yaml").write_text((CONF / "fractal" / "carpet.yaml").read_text())
    mine = mine.parent
    told = "fractal=carpet: the package has one of that name, which wins; rename "
    for place in (f"--config-dir={mine}", f"hydra.searchpath=[{mine}]"):
        assert str(command(*words.format("fractal=carpet").split(), place, "steps=10").status).startswith(
            f"error: {told}"
        )
    with pytest.raises(ConfigError, match=told):
        compose(fractal="carpet", hydra__searchpath=[str(mine)])
    assert compose(fractal="vicsek", hydra__searchpath=[str(mine)]).fractal.name == "vicsek"


def test_run_refuses_what_only_the_command_line_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"width=8: would be a directory; keys are keywords, width=\.\.\."):
        run("width=8")
    with pytest.raises(ConfigError, match="experiment=table1: is a sweep over fractal, curve, depth, width, lr"):
        run(experiment="table1")
    with pytest.raises(ConfigError, match=r"hydra\.launcher: there is no such key here"):
        run(hydra__launcher="slurm")
    assert not list(tmp_path.iterdir())


def test_run_finds_choices_of_ones_own_and_tells_another_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text("# @package _global_\nlr: 3e-3\n")
    keys = {"depth": 1, "steps": 20, "eval_every": 10, "data__train_size": 200, "data__test_size": 50, "logger": "none"}
    run("there", width=4, experiment="own", hydra__searchpath=["mine"], **keys)
    assert json.loads((tmp_path / "there" / "result.json").read_text())["lr"] == 0.003
    with pytest.raises(ConfigError, match=r"another config \(lr=0\.003 there, 0\.001 asked, width=4 there, 5 asked\)"):
        run("there", width=5, lr=1e-3, **keys)


@pytest.mark.parametrize("words", [[], ["logger=none"]])
def test_a_whole_config_has_a_list_of_defaults(command, tmp_path, words):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/my2.yaml").write_text("width: 4\n")
    told = command(f"--config-dir={tmp_path / 'mine'}", "--config-name=my2", *words).status
    assert told.startswith("error: ")
    assert told.endswith("my2.yaml: must begin with defaults: [config, _self_], for theory with [theory, _self_]")


@pytest.mark.parametrize("name", ["config", "config.yaml"])
def test_a_config_of_the_packages_name_is_not_passed_over(command, tmp_path, name):
    """As that of a run's own ``.hydra``, in whose place the paper's protocol would be trained."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.yaml").write_text("defaults: [config, _self_]\nwidth: 4\n")
    told = command(f"--config-dir={tmp_path / 'mine'}", f"--config-name={name}", "logger=none").status
    assert told.startswith("error: --config-name=config: the package has one of that name, which wins; rename ")

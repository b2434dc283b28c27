"""The doors explain themselves: one command with verbs, helps, completion in a shell; and a tree never installed."""

import contextlib
import dataclasses
import os
import re
import resource
import select
import shlex
import shutil
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import _logging_as_before
from matplotlib.figure import Figure

from fractal_ifs import __main__ as verbs
from fractal_ifs import __version__, completion, doctor, plot, theory
from fractal_ifs.completion import candidates
from fractal_ifs.config.compose import resolved
from fractal_ifs.config.run import GROUPS, KINDS
from fractal_ifs.errors import ConfigError
from fractal_ifs.files import CONF
from fractal_ifs.help import options
from fractal_ifs.help.shells import LINES, SCRIPTS
from fractal_ifs.report import __main__ as report
from fractal_ifs.sweeps.slurm_settings import SlurmSettings
from fractal_ifs.theorems.keys import SECTIONS
from fractal_ifs.theorems.statements import STATEMENTS, problems
from hydra_plugins.fractal_ifs_launcher import Packing

HELPS = ["", *verbs.VERBS, "report status", "report collect", "report check"]
BY_NAME, BY_MODULE = "/usr/bin/fractal-ifs", "/src/fractal_ifs/__main__.py"  # as sys.argv[0] has them
HEAVY = {"torch", "numpy", "pytorch_lightning", "wandb", "pandas", "scipy", "matplotlib", "rich"}


def called(monkeypatch, capsys, *arguments: str, name: str = BY_NAME) -> tuple[Any, str, str]:
    """How the command of all verbs ends in this process, and what it prints."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # the commands set it: taken back at the end
    capsys.readouterr()
    try:
        with _logging_as_before():
            status = verbs.main() or 0
    except SystemExit as error:
        status = error.code
    return status, *capsys.readouterr()


@pytest.fixture
def screen(monkeypatch, capsys):
    """``screen("report status")``: that help, on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def of(words: str, name: str = BY_NAME) -> str:
        status, out, err = called(monkeypatch, capsys, *words.split(), "--help", name=name)
        assert (status, err) == (0, "")
        return out

    return of


def names(text: str) -> set[str]:
    """What a help names at the beginning of a line, keys without their defaults."""
    return {line.split("=")[0] for line in re.findall(r"^  (\S+)", text, re.MULTILINE)}


# --- one command ------------------------------------------------------------------------------------------------------


def test_the_command_alone_shows_its_verbs(monkeypatch, capsys, screen):
    status, out, _ = called(monkeypatch, capsys)
    assert (status, out) == (0, screen(""))
    assert set(verbs.VERBS) <= names(out)
    assert out.count("\n  fractal-ifs ") == 3
    assert len(out.splitlines()) < 30
    assert called(monkeypatch, capsys, "--version")[:2] == (0, f"fractal_ifs {__version__}\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("trian", "trian: there is no such verb; did you mean train?"),
        ("--hlep", "--hlep: there is no such verb; verbs are train, status, report,"),
        ("train --bogus", "--bogus: there is no such option"),
        ("train --cfg", "--cfg: must be --cfg job|hydra|all"),
        ("theory theorem1 --bogus=1", "--bogus=1: there is no such option"),
        ("theory --cfg all-of-it", "--cfg all-of-it: must be --cfg job|hydra|all"),
        ("plot --bogus", "--bogus: there is no such option"),
        ("plot -m curve=1,2", "--multirun: is for sweeps; here a list of values makes the pictures of all of them"),
        ("plot --cfg hydra", "--cfg hydra: must be --cfg job"),
        ("train --help widht", "widht: there is no such key or group; did you mean width?"),
        ("train --help train_size", "train_size: there is no such key or group; did you mean data.train_size?"),
        ("train --help vicsek", "vicsek: there is no such key or group; it is a choice of fractal"),
        ("train --help xyz", "xyz: there is no such key or group; --help lists them"),
        ("train --help hydra.job.chdir", "hydra.job.chdir: is for Hydra; --cfg hydra shows its keys"),
        ("theory --help theorem6", "theorem6: there is no such key or group; did you mean theorem5?"),
        ("plot --help pionts", "pionts: there is no such key or group; did you mean points?"),
        ("--help trian", "trian: there is no such verb; did you mean train?"),
        ("report --help outptu", "outptu: there is no such option; did you mean output?"),
        ("report --help status x", "x: there is no such option; fractal-ifs report status --help lists them"),
        ("doctor --help x", "x: there is no such option; fractal-ifs doctor --help lists them"),
        ("doctor --bogus", "unrecognized arguments: --bogus; fractal-ifs doctor --help says what it takes"),
        ("doctor vicsek", "unrecognized arguments: vicsek"),
        ("status --bogus", "unrecognized arguments: --bogus; fractal-ifs status --help"),
        ("report collect x", "the following arguments are required: --into; fractal-ifs report collect --help"),
        ("completion tcsh", "SHELL: invalid choice: 'tcsh'"),
        ("train -m --experiment=table2", "--experiment=table2: keys have no dashes here: experiment=table2"),
        ("train --experiment table2", "--experiment: keys have no dashes here: experiment="),
        ("theory --experiment=table2", "--experiment=table2: keys have no dashes here: experiment=table2"),
        ("train --width=8", "--width=8: keys have no dashes here: width=8"),
        ("plot --fractal.depth=8", "--fractal.depth=8: keys have no dashes here: fractal.depth=8"),
        ("train -hydra.x=1", "-hydra.x=1: keys have no dashes here: hydra.x=1"),
        ("train -hello", "-hello: there is no such option"),
        ("train --info nonsense", "--info nonsense: must be --info all|config|"),
        ("train --info=nope", "--info nope: must be --info all|config|"),
        ("train --run=\x1b[31m", "--run \\x1b[31m: must be --run alone"),
        ("train --x=\x1b[31m", "--x=\\x1b[31m: there is no such option"),
        ("plot --x=\x1b[31m", "--x=\\x1b[31m: there is no such option"),
        ("train --experimental-rerun=nope", "--experimental-rerun=nope: must be the file config.pickle of a job"),
        ("train --resolve", "--resolve: must stand beside --cfg"),
        ("theory --resolve", "--resolve: must stand beside --cfg"),
        ("train -sc query=bash", "--shell-completion: must be followed by install=bash, install=zsh, install=fish"),
    ],
)
def test_what_a_verb_does_not_know_is_refused_in_one_line(monkeypatch, capsys, words, told):
    status, out, err = called(monkeypatch, capsys, *words.split())
    line = status if isinstance(status, str) else err.rstrip("\n")
    assert out == ""
    assert "\n" not in line
    assert line.startswith(f"error: {told}")
    assert status != 0


def test_each_verb_calls_its_own_command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "width: 7" in called(monkeypatch, capsys, "train", "width=7", "--cfg", "job")[1]
    assert sys.argv[0] == "fractal-ifs train"  # which Hydra shows too
    assert "shrink: 0.9" in called(monkeypatch, capsys, "theory", "--cfg=job", "shrink=0.9")[1]
    assert "error: multirun: there is no such directory" in called(monkeypatch, capsys, "status")[0]
    assert "error: x: there is no such directory" in called(monkeypatch, capsys, "report", "status", "x")[0]
    monkeypatch.setattr(doctor, "WIDTHS", ())
    status, out, _ = called(monkeypatch, capsys, "doctor")
    assert (status, f"fractal_ifs    {__version__}" in out) == (0, True)


def test_help_and_version_need_nothing_heavy_and_no_second(tmp_path):
    """All in one process, which shows what the first of them would import too: nothing."""
    code = "import contextlib, io, sys\nfrom fractal_ifs.__main__ import VERBS, main\n"
    code += "def run(*words):\n    sys.argv = ['fractal-ifs', *words]\n"
    code += "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main()\n"
    code += f"heavy = {sorted(HEAVY)}\nlight = [*heavy, 'hydra', 'omegaconf', 'yaml']\n"
    code += "run()\nrun('--help')\nrun('--version')\nprint([m for m in light if m in sys.modules])\n"
    code += "for verb in VERBS: run(verb, '--help')\n"
    code += "run('completion', 'query', 'fractal-ifs train fractal=')\nprint([m for m in heavy if m in sys.modules])\n"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines() == ["[]", "[]"], done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


# --- helps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", HELPS)
@pytest.mark.parametrize("name", [BY_NAME, BY_MODULE])
def test_a_help_fits_in_80_columns_and_shows_how_it_was_called(screen, words, name):
    text = screen(words, name)
    assert max(map(len, text.splitlines())) <= 80
    caller = "fractal-ifs" if name == BY_NAME else "python -m fractal_ifs"
    assert text.startswith(f"usage: {caller} {words}".rstrip())


def test_a_help_fits_where_a_module_is_called(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    for module in sorted({verb.module for verb in verbs.VERBS.values()}):
        monkeypatch.setattr(sys, "argv", [f"/src/fractal_ifs/{module.replace('.', '/')}.py", "--help"])
        with contextlib.suppress(SystemExit):
            import_module(f"fractal_ifs.{module}").main()
        out = capsys.readouterr().out
        door = "predict" if module == "predictions" else module.removesuffix(".__main__")
        assert out.startswith(f"usage: python -m fractal_ifs.{door} ")
        assert max(map(len, out.splitlines())) <= 80


def test_a_narrow_terminal_gets_narrow_lines(monkeypatch, capsys, screen):
    monkeypatch.setenv("COLUMNS", "60")
    explained = [
        line for line in called(monkeypatch, capsys, "plot", "-h")[1].splitlines() if line.startswith(" " * 26)
    ]
    assert 40 < max(map(len, explained)) <= 60


@pytest.mark.parametrize("arguments", ["fractal=vicsek -h", "--cfg job --help", "-m --bogus --help", "depth=0 --help"])
def test_help_beside_other_arguments_is_help(monkeypatch, capsys, screen, arguments):
    assert called(monkeypatch, capsys, "train", *arguments.split())[:2] == (0, screen("train"))


def test_the_help_of_train_names_every_key_group_and_choice(screen):
    text = screen("train")
    keys = {
        f"{kind.PREFIX}{field.name}"
        for kind in (*KINDS, Packing, SlurmSettings)
        for field in dataclasses.fields(kind)
        if field.metadata and field.name != "name"  # which a choice sets
    }
    keys |= {f"curve.{name}" for name in ("degree", "last", "weights", "mass", "P")} | {"hydra.sweeper.best_lr"}
    keys |= {f"fractal.{name}" for name in yaml.safe_load((CONF / "fractal" / "custom.yaml").read_text())}
    groups = {path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")}
    groups -= {".", "protocol"}  # which isn't chosen by users
    assert set(GROUPS) < groups
    assert groups | keys - {"fractal.name"} <= names(text)
    flat = " ".join(text.split("groups, with")[1].split())
    for group in groups:
        found = {path.stem for path in (CONF / group).glob("*.yaml")} - {"conjecture"}
        line = re.search(rf" {group}=\w+ [^:]+: ((?:[\w]+, )*\w+)", flat)
        assert line, group
        assert set(line[1].split(", ")) == found


def test_a_line_of_help_is_the_fact_of_its_key(screen):
    flat = " ".join(screen("train").split())
    for line in (
        "depth=5 hidden layers (a whole number >= 1 and <= 100000)",
        "lr=5e-4 learning rate (a finite number > 0 and <= 1e38)",
        "training=joint all layers together, or each in turn (one of joint, layerwise)",
        "ddp only; with trainer=ddp: 2 (a whole number >= 1 and <= 1024)",
        "logger.mode=null null: as WANDB_MODE says, else online for who is logged in, else offline "
        "(one of online, offline, disabled, or null)",
        "data=cifar10 loss=cross_entropy batch_size=128 steps=60000 eval_every=1000 lr=1e-3",
    ):
        assert line in flat


def test_the_help_of_a_group_explains_its_choices(screen):
    for verb, group in (*(("train", name) for name in GROUPS), ("train", "hydra/launcher"), ("theory", "experiment")):
        text = screen(f"{verb} {group}")
        chosen = {path.stem for path in (CONF / group).glob("*.yaml")}
        assert chosen <= names(text) if verb == "train" else "conjecture" in names(text)
    assert "an X, not a plus" in screen("plot fractal")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train --help width", ["keys of what is trained, which belong to a run's result:", "  width=100 "]),
        ("train width -h", ["  width=100 "]),
        ("--help train width", ["  width=100 "]),
        (
            "train --help data.train_size",
            ["keys of data=fractal:", "keys of data=cifar10 ", "  data.train_size=50000 "],
        ),
        ("train --help trainer.", ["  trainer.devices=1 ", "  trainer.precision="]),
        ("train --help depth hydra.sweeper", ["  depth=5 ", "  hydra.sweeper.best_lr=null\n"]),
        ("train --help hydra/launcher", ["  slurm  ", "  basic  ", "  hydra.launcher.stack=0 "]),
        ("train --help hydra/sweeper", ["  checked  ", "  basic  ", "  hydra.sweeper.params=null\n"]),
        ("theory --help theorem5", ["  theorem5  ", "  theorem5.delta=0.1 "]),
        ("plot points --help", ["  points=10000 "]),
        ("report --help output", ["  -o OUT, --output OUT  default: report"]),
        ("report --help status", ["usage: fractal-ifs report status "]),
        ("--help status", ["usage: fractal-ifs status "]),
        ("status --help dir", ["  DIR  "]),
        ("dashboard --help sweep", ["  --sweep SWEEP  "]),
    ],
)
def test_the_help_on_a_word_is_its_lines_alone(monkeypatch, capsys, words, told):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = called(monkeypatch, capsys, *words.split())
    assert (status, err) == (0, "")
    assert all(text in out for text in told)
    assert len(out.splitlines()) < 80
    assert "depth" not in words or not {"lr", "steps", "fractal"} & names(out)


def test_the_help_on_launchers_names_those_of_installed_packages(screen):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the plugin is not installed")
    assert "joblib" in names(screen("train hydra/launcher"))


@pytest.mark.parametrize("words", ["--config-dir mine", "hydra.searchpath=[mine]", "hydra.searchpath=['file://mine']"])
@pytest.mark.parametrize("verb", ["train", "plot", "theory"])
def test_the_help_lists_choices_of_ones_own(monkeypatch, capsys, tmp_path, verb, words):
    monkeypatch.chdir(tmp_path)
    Path("mine/fractal").mkdir(parents=True)
    Path("mine/fractal/corners.yaml").write_bytes(b"# Three corners\xff of five. Not more.\nname: corners\n")
    for place in ([*words.split(), "--help", "fractal"], ["--help", "fractal", *words.split()]):
        status, out, _ = called(monkeypatch, capsys, verb, *place)
        assert status == 0
        assert re.search("^  corners +Three corners. of five$", out, re.MULTILINE)
    assert ", corners" in " ".join(called(monkeypatch, capsys, verb, *words.split(), "--help")[1].split())


def test_a_config_of_ones_own_is_begun_with(command, tmp_path):
    """As the help on --config-name says."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "other.yaml").write_text("defaults:\n  - config\n  - _self_\nwidth: 7\n")
    assert "\nwidth: 7\n" in command("--config-dir", "mine", "--config-name", "other", "--cfg", "job").out


def test_plot_shows_its_config_and_draws_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, out, _ = called(monkeypatch, capsys, "plot", "--cfg", "job", "fractal=vicsek", "curve=1,4", "points=7")
    first, second = yaml.safe_load_all(out)
    assert (status, first["fractal"]["name"], first["points"]) == (0, "vicsek", 7)
    assert (first["curve"]["name"], second["curve"]["name"]) == ("1", "4")
    assert not list(tmp_path.iterdir())
    assert called(monkeypatch, capsys, "plot", "--version")[:2] == called(monkeypatch, capsys, "train", "--version")[:2]


def test_each_door_takes_what_the_page_says(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "hydra.md").read_text()
    lines = page.split("| command |")[1].split("\n\n")[0].splitlines()[2:]
    said = {verb: line.split(" | ")[1:] for line in lines for verb in re.findall(r"`(\w+)`", line.split(" | ")[0])}
    assert set(said) == set(verbs.VERBS)
    for verb, (key, sweep, cfg, others, version, word) in said.items():
        offered = candidates(f"fractal-ifs {verb} --")
        for entry, option in ((sweep, "--multirun"), (cfg, "--cfg"), (others, "--config-dir"), (version, "--version")):
            assert (option in offered) is not entry.startswith("no"), f"{verb} {option}"
        assert ("--info" in offered) == (others == "yes")
        assert ("[KEY=VALUE ...]" in called(monkeypatch, capsys, verb, "--help")[1]) == (key == "yes")
        if key == "yes":
            assert "\nseed: 7\n" in called(monkeypatch, capsys, verb, "seed=7", "--cfg", "job")[1]
        assert word.startswith("yes")
        status, _, err = called(monkeypatch, capsys, verb, "--help", "x")
        assert "error: x: there is no such" in f"{status}{err}"


def test_the_help_of_theory_shows_what_it_takes_and_nothing_else(screen):
    text = screen("theory")
    assert {"all", *STATEMENTS} <= names(text)
    values = yaml.safe_load((CONF / "theory.yaml").read_text())
    keys = {name for name, value in values.items() if not isinstance(value, dict)} - {"defaults"}
    keys |= {f"{name}.{key}" for name in STATEMENTS for key in values.get(name, {})}
    assert keys <= names(text)
    assert not {"data", "model", "trainer", "logger", "budget", "protocol"} & {
        name.split(".")[0] for name in names(text)
    }
    assert "table2" not in text
    assert " ".join(text.split()).count("hidden layers (a whole number >= 1 and <= 1000)") == 1  # of Theorem 2
    assert list(SECTIONS) == list(STATEMENTS)
    said = {name for name, kind in SECTIONS.items() if kind.ABOUT != "random"}
    assert set(STATEMENTS) - said == {"conjecture1"}  # as the line of `all` says


def test_the_help_of_plot_names_its_keys(screen):
    values = yaml.safe_load((CONF / "plot.yaml").read_text())
    assert set(values) - {"defaults"} | {"fractal", "curve"} <= names(screen("plot"))


def test_hydras_options_are_those_that_hydra_has():
    from hydra._internal.utils import get_args_parser

    theirs = {tuple(sorted(action.option_strings)) for action in get_args_parser()._actions if action.option_strings}
    assert {tuple(sorted(filter(None, (option.long, option.short)))) for option in options.HYDRA} == theirs


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("width=7 -m curve=1,4", "--multirun|width=7 curve=1,4"),
        ("width=7 --cfg job -p model", "--cfg=job --package=model|width=7"),
        ("--cfg=job -pmodel --multi width=7", "--cfg=job --package=model --multirun|width=7"),
        ("-i defaults width=7", "--info=defaults|width=7"),
        ("-i width=7", "--info=all|width=7"),
        ("all -cd mine theorem1", "--config-dir=mine|all theorem1"),
    ],
)
def test_options_stand_before_words_with_their_values(given, told):
    found = options.options_and_words(given.split())
    assert "|".join(map(" ".join, found)) == told


# --- examples ---------------------------------------------------------------------------------------------------------


def shown(text: str) -> list[list[str]]:
    """The arguments of every example of a help."""
    return [shlex.split(line)[1:] for line in re.findall(r"^  (fractal-ifs .*)$", text, re.MULTILINE)]


@pytest.fixture
def accepted(monkeypatch, tmp_path, command):
    """Check a command as it checks itself, up to where its work would begin; the number of jobs of `train`."""
    monkeypatch.chdir(tmp_path)

    def check(verb: str, arguments: list[str]) -> int | None:
        if verb == "train" and "--cfg" in arguments:
            assert command(*arguments).status == 0
            return None
        if verb == "train":
            jobs: list[Any] = []

            def train(todo: list[Any], *_: Any, **__: Any) -> list[Any]:
                jobs.extend(todo)
                raise ConfigError("all accepted")

            monkeypatch.setattr("fractal_ifs.sweeps.sweep.train_unfinished", train)
            assert command(*arguments).status == "error: all accepted"
            return len(jobs)
        if verb == "theory":
            monkeypatch.setattr(theory, "_run", lambda config, _: bool(problems(resolved(config))))
            monkeypatch.setattr(sys, "argv", ["theory", *arguments])
            with _logging_as_before():
                theory.main()
        elif verb == "plot":
            monkeypatch.setattr(plot, "_plan_network", lambda settings, _: plot.Picture(settings, "run", Figure))
            with contextlib.closing(plot._compose(arguments)) as composed:
                assert all(plot._plan(configs) for configs in composed)
        elif verb in ("report", "status"):
            name, *rest = ["status", *arguments] if verb == "status" else arguments
            own = report.PARSERS.get(name)
            assert own().parse_args(rest) if own else report.parser().parse_args(arguments)
        else:
            assert import_module(f"fractal_ifs.{verbs.VERBS[verb].module}").parser().parse_args(arguments)
        return None

    return check


def test_every_example_is_accepted(screen, accepted):
    """Hydra's sweeps included: how many jobs each is."""
    examples = [arguments for words in HELPS for arguments in shown(screen(words))]
    assert len(examples) > 25
    assert {arguments[0] for arguments in examples} >= {"train", "theory", "plot", "report", "status", "dashboard"}
    jobs = [accepted(verb, arguments) for verb, *arguments in examples]
    assert [number for number in jobs if number] == [2, 1, 3, 12, 12, 3]


# --- completion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("fractal-ifs pl", ["plot"]),
        ("fractal-ifs --v", ["--version"]),
        ("/opt/bin/fractal-ifs train fractal=vi", ["fractal=vicsek"]),
        ("fractal-ifs train logger=", [f"logger={path.stem}" for path in sorted((CONF / "logger").iterdir())]),
        ("fractal-ifs train -m curve=1,4,p", ["curve=1,4,polynomial"]),
        (
            "fractal-ifs train -m model=mlp,",
            [f"model=mlp,{name}" for name in ("cnn", "resmlp", "theorem1", "transformer")],
        ),
        ("fractal-ifs train 'loss=", [f"loss={path.stem}" for path in sorted((CONF / "loss").iterdir())]),
        ("fractal-ifs train optimizer=", ["optimizer=adam", "optimizer=adamw", "optimizer=sgd"]),
        ("fractal-ifs train optimizer.n", ["optimizer.nesterov="]),
        ("fractal-ifs train schedule.w", ["schedule.warmup="]),
        ("fractal-ifs train overwrite=", ["overwrite=true", "overwrite=false"]),
        ("fractal-ifs train tr", ["trainer=", "training=", "trainer."]),
        ("fractal-ifs train trainer.c", ["trainer.compile=", "trainer.cuda_graphs=", "trainer.channels_last="]),
        ("fractal-ifs train hydra", ["hydra/launcher=", "hydra/sweeper=", "hydra."]),
        ("fractal-ifs train width=1", []),
        ("fractal-ifs train --cfg ", ["job", "hydra", "all"]),
        ("fractal-ifs train --multi", ["--multirun"]),
        ("fractal-ifs train experiment=fig", [f"experiment=figure{number}" for number in (4, 5, 6, 7)]),
        ("fractal-ifs train experiment=c", []),
        ("fractal-ifs theory experiment=", ["experiment=conjecture"]),
        ("fractal-ifs theory log", []),
        ("fractal-ifs theory theorem5", ["theorem5", "theorem5."]),
        ("fractal-ifs theory statement=theorem1,theorem5", ["statement=theorem1,theorem5"]),
        ("fractal-ifs plot mod", []),
        ("fractal-ifs plot --", ["--cfg", "--config-dir", "--help", "--version"]),
        ("fractal-ifs plot --cfg ", ["job"]),
        ("fractal-ifs train hydra/launcher=b", ["hydra/launcher=basic"]),
        ("fractal-ifs report ", ["status", "collect", "check", "compare"]),
        ("fractal-ifs report collect x --i", ["--into"]),
        ("fractal-ifs status --", ["--help", "--watch"]),
        ("fractal-ifs status ", []),
        ("fractal-ifs dashboard --p", ["--project", "--print"]),
        ("fractal-ifs export --", ["--help", "--output", "--format", "--best"]),
        ("fractal-ifs predict run --b", ["--best"]),
        ("fractal-ifs completion z", ["zsh"]),
        ("fractal-ifs trian x", []),
        ("python -m fractal_ifs.th", ["fractal_ifs.theory"]),
        ("python -m fractal_ifs.pr", ["fractal_ifs.predict"]),
        ("python3 -m fractal_ifs tr", ["train"]),
        ("python -m fractal_ifs.train fractal=vi", ["fractal=vicsek"]),
        ("python -m fractal_ifs.train.x ", []),
        ("python -m http.server ", []),
        ("python script.py tr", []),
        ("", []),
    ],
)
def test_what_a_word_may_become(line, found):
    assert candidates(line) == found


def test_own_choices_are_offered_where_the_command_names_their_directory(tmp_path):
    for group in ("fractal", "curve"):
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text("name: mine\n")
    for words in (f"hydra.searchpath=[{tmp_path}]", f"--config-dir {tmp_path}", f"-cd={tmp_path}"):
        assert candidates(f"fractal-ifs train {words} fractal=m") == ["fractal=mine"]
        assert "curve=mine" in candidates(f"fractal-ifs train {words} curve=m")


PLAIN = {
    "sweep": "x",
    "hydra.searchpath": "[]",
    "data.url": "null",
}  # for defaults that need quotes
CHOSEN = {
    "keys of data=cifar10": ["data=cifar10", "model=cnn"],
    "keys of model=cnn": ["data=cifar10", "model=cnn"],
    "keys of model=resmlp": ["model=resmlp"],
    "keys of model=transformer": ["model=transformer"],
    "keys of model=theorem1": ["model=theorem1"],
    "keys of a sweep in Slurm": ["hydra/launcher=slurm"],
    "keys of a sweep that prunes": ["hydra/sweeper=halving"],
    "keys of a sweep that searches": ["hydra/sweeper=outward"],
    "keys of a fractal": ["fractal=custom"],
    "keys of optimizer=sgd": ["optimizer=sgd"],
    "keys of schedule=linear": ["schedule=linear"],
    "keys of schedule=step": ["schedule=step"],
    "keys of schedule=inverse": ["schedule=inverse"],
}


@pytest.mark.parametrize("verb", ["train", "theory", "plot"])
def test_no_key_is_offered_that_the_command_refuses(verb):
    """All keys of a title with their defaults, beside the choices that they go with."""
    from hydra import compose, initialize_config_dir

    from fractal_ifs.config.session import VERSION_BASE, borrowed

    asked: list[list[str]] = []
    for title, keys in import_module(f"fractal_ifs.help.{verb}").takes().keys:
        if title == "keys of a curve":
            asked += [[key.doc.split(":")[0].removeprefix("of "), f"{key.name}=2"] for key in keys]
        else:
            chosen = next((words for beginning, words in CHOSEN.items() if title.startswith(beginning)), [])
            asked.append([*chosen, *(f"{key.name}={PLAIN.get(key.name, key.default)}" for key in keys)])
    with borrowed(), initialize_config_dir(str(CONF), **VERSION_BASE):
        for words in asked:
            assert compose({"train": "config"}.get(verb, verb), words)
    assert sum(map(len, asked)) > 25


def a_tool(folder: Path) -> Path:
    """The command ``fractal-ifs``, in a directory of its own."""
    tool = folder / "bin" / "fractal-ifs"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m fractal_ifs "$@"\n')
    tool.chmod(0o755)
    return tool


@pytest.mark.parametrize(
    ("shell", "begin", "end"),
    [
        ("bash", "", "complete -p fractal-ifs"),
        ("zsh", "autoload -U compinit; compinit -D", "print $_comps[fractal-ifs]"),
        ("fish", "", "complete -C 'fractal-ifs train fractal=vi'; complete -C 'python -m fractal_ifs pl'"),
    ],
)
def test_each_shell_reads_its_script(tmp_path, shell, begin, end):
    """Without a complaint; and of fish, which can be asked, what a tab gives."""
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    path = f"{a_tool(tmp_path).parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HOME": str(tmp_path)}
    (tmp_path / "script").write_text(SCRIPTS[shell])
    plain = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    for words in (["-n", "script"], [*plain, "-c", f"{begin}\n{LINES[shell]}\n{end}"]):
        done = subprocess.run(
            [shell, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert (done.returncode, done.stderr) == (0, "")
    told = {"bash": "_fractal_ifs_command fractal-ifs", "zsh": "_fractal_ifs_command", "fish": "fractal=vicsek\nplot"}
    assert told[shell] in done.stdout


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_tab_in_bash(tmp_path):
    """A real bash on a terminal: what stands in the line after a tab."""
    import pty

    tool = a_tool(tmp_path)
    (tmp_path / "multirun" / "mine").mkdir(parents=True)
    main, other = pty.openpty()
    path = f"{tool.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=other,
        stdout=other,
        stderr=other,
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "TERM": "dumb", "PS1": "> ", "HISTFILE": "", "COLUMNS": "200"},
        start_new_session=True,
    )
    os.close(other)
    text = ""

    def until(expected: str) -> None:
        nonlocal text
        end = time.monotonic() + 300
        while expected not in text:
            assert select.select([main], [], [], max(0, end - time.monotonic()))[0], f"{expected}: {text}"
            text += os.read(main, 65536).decode(errors="replace")

    try:
        os.write(main, b'eval "$(fractal-ifs completion bash)"; echo installed $((1 + 1))\n')
        until("installed 2")
        for typed, expected in (
            ("fractal-ifs pl\t", "fractal-ifs plot "),
            ("fractal-ifs train fractal=vi\t", "fractal-ifs train fractal=vicsek "),
            ("fractal-ifs train -m curve=1,p\t", "fractal-ifs train -m curve=1,polynomial "),
            ("fractal-ifs train 'curve=po\t", "fractal-ifs train 'curve=polynomial' "),
            ("fractal-ifs train trainer.pre\t3\t", "fractal-ifs train trainer.precision=32-true "),
            ("fractal-ifs plot run=mul\tmi\t", "fractal-ifs plot run=multirun/mine/"),
            ("python -m fractal_ifs.train fractal=vi\t", "python -m fractal_ifs.train fractal=vicsek "),
            ("python mul\t", "python multirun/"),
        ):
            text = ""
            os.write(main, typed.encode())
            until(expected)
            os.write(main, b"\x15")  # the line is deleted
    finally:
        shell.kill()
        shell.wait()
        os.close(main)


def test_hydras_own_way_to_install_a_completion_installs_this_one(monkeypatch, capsys):
    for verb in ("train", "theory"):
        for shell in SCRIPTS:
            status, out, _ = called(monkeypatch, capsys, verb, "--shell-completion", f"install={shell}")
            assert (status, out.strip()) == (0, SCRIPTS[shell].strip())
    assert called(monkeypatch, capsys, "completion", "fish")[1].strip() == SCRIPTS["fish"].strip()
    completion.main(["query", "fractal-ifs train curve=l"])
    assert capsys.readouterr().out == "curve=last\n"


# --- a source tree that was never installed ---------------------------------------------------------------------------

HIDING = """
import importlib.metadata, sys
from pathlib import Path
def other(entry):  # not a source tree of this package; nor a folder that has it among all the others
    return entry == {copy!r} or not Path(entry, "fractal_ifs").is_dir() or Path(entry, "torch").is_dir()
sys.path[:] = [entry for entry in sys.path if other(entry)]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
found = importlib.metadata.MetadataPathFinder.find_distributions.__func__
def others(cls, *context):
    return (each for each in found(cls, *context) if each.metadata["Name"].replace("-", "_") != "fractal_ifs")
importlib.metadata.MetadataPathFinder.find_distributions = classmethod(others)
"""
VERBS = """
import sys
from fractal_ifs.__main__ import main
if __name__ == "__main__":  # workers of a sweep import this file
    for words in {commands!r}:
        print("+", words[0], flush=True)
        sys.argv = ["fractal-ifs", *words]
        try:
            main()
        except SystemExit as error:
            assert not error.code, error.code
"""


def test_a_source_tree_without_metadata_and_compiled_engine(tmp_path):
    source = Path(verbs.__file__).parents[1]
    shutil.copytree(
        source, tmp_path / "src", ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info", "native")
    )
    (tmp_path / "hiding").mkdir()
    (tmp_path / "hiding" / "sitecustomize.py").write_text(HIDING.format(copy=str(tmp_path / "src")))
    env = {**os.environ, "PYTHONPATH": f"{tmp_path / 'src'}{os.pathsep}{tmp_path / 'hiding'}"}
    tiny = [
        "depth=1",
        "width=4",
        "steps=20",
        "eval_every=20",
        "data.train_size=200",
        "data.test_size=50",
        "logger=none",
    ]
    commands = [
        ["train", *tiny, "hydra.run.dir=one"],
        ["train", "-m", "curve=1,4", "sweep=two", *tiny],
        ["status", "multirun/two"],
        ["report", "multirun/two", "--no-figures"],
        ["plot", "run=one", "pixels=10", "formats=png"],
        ["theory", "corollary1", "points=100", "corollary1.points=100", "figures=false"],
        ["doctor"],
    ]
    (tmp_path / "verbs.py").write_text(VERBS.format(commands=commands))

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert run("-m", "fractal_ifs", "--version") == "fractal_ifs 0+unknown\n"
    assert f"file://{tmp_path / 'src' / 'fractal_ifs' / 'conf'}" in run(
        "-m", "fractal_ifs", "train", "--info", "searchpath"
    )
    out = run("verbs.py")
    assert [line[2:] for line in out.splitlines() if line.startswith("+ ")] == [words[0] for words in commands]
    assert len(list((tmp_path / "multirun" / "two").glob("*/result.json"))) == 2
    assert "multirun/two: 2 runs: 2 finished" in out
    assert (tmp_path / "report" / "results.csv").exists()
    assert len(list((tmp_path / "plots").glob("learned-*.png"))) == 1
    assert "0 don't hold" in out
    assert re.search(r"^fractal_ifs +0\+unknown$", out, re.MULTILINE)
    assert re.search(r"^native base +not built", out, re.MULTILINE)
    assert re.search(r"^engine +torch", out, re.MULTILINE)

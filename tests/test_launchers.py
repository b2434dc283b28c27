"""Other launchers and sweepers of Hydra's, as their users have them: real commands in processes of their own."""

import itertools
import json
import math
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from typing import Any

import hydra
import pytest
import yaml
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import Node, OmegaConf

from fractal_ifs.config.fast_compose import DIRECTORY, NAME, Composer
from fractal_ifs.config.session import VERSION_BASE, borrowed
from fractal_ifs.errors import ConfigError, counted
from fractal_ifs.files import CONF
from fractal_ifs.sweeps.jobs import yaml_of

QUICK = ["fractal=vicsek", "width=8", "depth=2", "steps=60", "eval_every=30", "data.train_size=1000"]
QUICK += ["data.test_size=200", "logger=csv"]


def trained(folder, *arguments):
    """What a sweep says, and its records by their keys."""
    done = subprocess.run(
        [sys.executable, "-m", "fractal_ifs.train", "-m", *QUICK, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in (folder / "multirun").rglob("result.json")]
    keys = ("best_test_acc", "best_step", "final_test_acc", "steps", "fingerprint", "status")
    return done.stdout + done.stderr, {(r["curve"], r["lr"]): [r[key] for key in keys] for r in records}


@pytest.mark.slow
def test_launchers_of_others_give_the_same_numbers(tmp_path):
    """Submitit's own settings refer to the sweep's directory, so to what ``sweep=s`` sets."""
    said = {}
    for launcher, plugin in (("fused", None), ("joblib", "joblib"), ("submitit_local", "submitit")):
        if plugin:
            pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher", reason="the plugin is not installed")
        (tmp_path / launcher).mkdir()
        _, said[launcher] = trained(tmp_path / launcher, "curve=1,4", f"hydra/launcher={launcher}", "sweep=s")
    assert len(said["fused"]) == 2
    assert said["joblib"] == said["submitit_local"] == said["fused"]


@pytest.fixture
def optuna():
    """Skips where Optuna's sweeper isn't installed, or is one for another Hydra."""
    pytest.importorskip("optuna", reason="hydra-optuna-sweeper is not installed")
    if (plugin := version("hydra-optuna-sweeper"))[:3] != hydra.__version__[:3]:
        pytest.skip(f"hydra-optuna-sweeper {plugin} is for another Hydra")


TRIALS = ["curve=1", "lr=interval(1e-4,1e-2)", "hydra/sweeper=optuna", "hydra.sweeper.n_jobs=2", "sweep=trials"]
TRIALS += ["hydra.sweeper.study_name=${sweep}"]


def test_optunas_parallel_trials_fuse(tmp_path, optuna):
    said, records = trained(tmp_path, *TRIALS, "hydra.sweeper.n_trials=4")
    assert said.count("2 jobs in multirun/trials") == 2
    assert len(records) == 4  # each with a learning rate of its own
    assert {record[-1] for record in records.values()} == {"finished"}
    best = max(record[0] for record in records.values())
    assert f"Best value: {best}" in said  # the best, not the worst


@pytest.mark.slow
def test_a_study_that_is_kept_goes_on(tmp_path, optuna):
    if int(version("optuna")[0]) < 3 <= int(version("sqlalchemy")[0]) + 1:
        pytest.skip("Optuna 2 keeps a study with SQLAlchemy 1 alone")
    kept = [*TRIALS, "hydra.sweeper.storage=sqlite:///study.db", "hydra.sweeper.n_trials=2"]
    trained(tmp_path, *kept)
    said, records = trained(tmp_path, *kept)
    assert len(records) == 4
    assert f"Best value: {max(record[0] for record in records.values())}" in said  # of both commands


@pytest.mark.slow
def test_the_experiment_optuna_draws_the_same_again(tmp_path, optuna):
    """Also where it draws one network several times: that is trained once."""
    search = ["experiment=optuna", "lr=choice(1e-3,1e-2)", "width=8", "depth=2", "curve=1", "sweep=trials"]
    search += ["hydra.sweeper.n_jobs=5"]
    _, first = trained(tmp_path, *search, "hydra.sweeper.n_trials=5")
    assert 1 <= len(first) <= 2
    said, again = trained(tmp_path, *search, "hydra.sweeper.n_trials=5")
    assert again == first
    assert f"{len(first)} of {counted(len(first), 'job')}" in said.replace("1 of 1 jobs", "1 of 1 job")
    assert f"Best value: {max(record[0] for record in first.values())}" in said


@pytest.mark.parametrize("asked", ["maximize", "minimize"])
def test_optuna_looks_for_the_best_network_unless_told_otherwise(command, optuna, asked):
    words = ["hydra.sweeper.direction=minimize"] if asked == "minimize" else []
    assert f"direction: {asked}" in command("experiment=optuna", *words, "--cfg", "hydra").out
    refused = command("-m", "experiment=optuna", *words, "hydra.sweeper.n_trial=3")
    assert refused.status == "error: hydra.sweeper.n_trial=3: there is no such key; did you mean n_trials?"


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="$"), max_size=8)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | WORDS


def test_a_job_is_composed_as_hydra_composes_it():
    """All of the config, Hydra's own part included, whatever kinds of overrides meet."""
    with borrowed(), initialize_config_dir(str(CONF), **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", ["hydra.verbose=true", "sweep=s"], RunMode.MULTIRUN)
        compose = Composer(loader, master)
        parts = [
            ["fractal=vicsek", "curve=weights"],
            ["width=20", "fractal.depth=6", "+data.note=1", "~logger.mode"],
            ["curve.weights=[1,2,3]", "fractal={depth:3}", "budget=quick"],
        ]
        for chosen in itertools.product(*parts):
            expected = None
            try:
                expected = loader.load_sweep_config(master, list(chosen))
            except Exception as error:
                with pytest.raises(type(error)):
                    compose(chosen)
                continue
            assert compose(chosen) == expected
            assert OmegaConf.to_yaml(compose(chosen)) == OmegaConf.to_yaml(expected)
            assert compose(chosen).hydra.job.override_dirname == expected.hydra.job.override_dirname
        for words in (["width=6", "++width=8"], ["++width=8", "width=6"], ["fractal.depth=3", "++fractal.depth=2"]):
            assert compose(words) == loader.load_sweep_config(master, words)
        for words in (["model.skip=sum", "+model.skip=none"], ["+lr=3", "lr=1"]):
            with pytest.raises(HydraException):
                compose(words)
        with pytest.raises(ConfigError):
            compose(["=1"])


@settings(max_examples=50)
@given(st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)))
@example({"a": ["1e-3", "1_000", "yes", "Y", "off", "nan", "0x1", "1:30", "~", "null", "", " x ", "${b}"]})
@example({"a": [1e-3, True, None, 1e22, math.nan, "ä\n- b: 'c'", {}, []], "b": "x" * 200, "3": {"c": -0.0}})
def test_a_jobs_files_are_read_by_omegaconf_as_they_were(content):
    whole = {"content": content}
    assert OmegaConf.to_yaml(OmegaConf.create(yaml_of(whole))) == OmegaConf.to_yaml(OmegaConf.create(whole))


OWN = {  # files of a user's own
    "curve/plain": "name: polynomial\ndegree: ${depth}\n",
    "curve/typed": "name: 3\n1: {a: [1, {b: ???}]}\n",
    "curve/headed": "# @package _global_\nwidth: 7\n",
    "curve/listed": "defaults: [mass]\ndegree: 2\n",
    "curve/text": "mine\n",
    "curve/4": "degree: 9\n",  # never read: conf/ has one
    "fractal/plain": "name: mine\nnested: {a: {b: 1}}\n",
    "experiment/nodes": "# @package _global_\nfractal: {depth: 3}\noptimizer: sgd\n",
    "experiment/follows": "# @package _global_\ndefaults: [{override /loss: logistic}, {/stop@mine: '${stop}'}]\n",
}


@pytest.mark.parametrize(
    "grid",
    [
        (["curve=1", "curve=4", "curve=plain", "curve=typed"], ["fractal=cantor", "fractal=plain"], ["curve.degree=3"]),
        (["curve=1", "curve=headed", "curve=listed", "curve=text", "curve=none"], ["fractal=vicsek"], ["width=3"]),
        (["experiment=nodes"], ["fractal=vicsek", "fractal=cantor"], ["optimizer=adam", "optimizer=sgd"], ["curve=4"]),
        (["experiment=follows"], ["stop=never"], ["loss=hinge", "loss=squared"], ["curve=2"]),
        (["optimizer=sgd"], ["schedule=step", "schedule=cosine"], ["logger=csv"], ["optimizer.clip=1"]),
        (["curve=1", "curve=6"], ["+curve.mine=1", "~curve.degree", "++curve.degree=2"], ["fractal=cantor"]),
        (["callbacks=lr_monitor", "callbacks=[lr_monitor,best_checkpoint]"], ["model=resmlp", "model=theorem1"]),
        (["model=mlp", "model=resmlp"], ["model.skip=sum"], ["trainer=gpu", "trainer=ddp"], ["budget=quick"]),
        (["curve=1", "curve=2"], ["curve=3"]),
        (["hydra/sweeper=halving", "hydra/env=default"], ["curve=1", "curve=3"]),
    ],
)
def test_choices_are_composed_as_hydra_composes_them(tmp_path, grid):
    """Whatever their files say: all of the config, what its nodes take later, and in the same order."""
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    with borrowed(), initialize_config_dir(str(CONF), **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        loader.get_search_path().prepend("mine", str(tmp_path), "schema")
        loader = ConfigLoaderImpl(loader.get_search_path())
        master = loader.load_configuration("config", ["sweep=s"], RunMode.MULTIRUN)
        compose = Composer(loader, master)
        for chosen in itertools.product(*grid):
            try:
                expected = loader.load_sweep_config(master, list(chosen))
            except Exception as error:
                with pytest.raises((type(error), ConfigError)):
                    compose(chosen)
                continue
            if any(word.startswith("hydra/sweeper") for word in chosen):
                with pytest.raises(ConfigError, match="belongs to a whole sweep"):
                    compose(chosen)
                continue
            found = compose(chosen)
            assert found == expected
            assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected)
            for group in ("curve", "fractal", "loss", "optimizer", "model", "callbacks", "hydra"):
                ours, theirs = found._get_node(group), expected._get_node(group)
                assert isinstance(ours, Node)
                assert isinstance(theirs, Node)
                assert type(ours) is type(theirs)
                assert ours._metadata == theirs._metadata


def settled(config):
    """With the name and the directory of a sweep that no job names, which are found once."""
    sweep = config["hydra"]["sweep"]
    if config["sweep"] == NAME and sweep["dir"] == DIRECTORY:
        return config | {"sweep": "default", "hydra": config["hydra"] | {"sweep": sweep | {"dir": "multirun/default"}}}
    return config


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["engine=cuda"], "engine=cuda: needs a GPU, and PyTorch finds none here"),
        (["trainer.accelerator=auto", "trainer.tf32=true"], "trainer.tf32=true: needs a GPU, trainer=gpu"),
        (
            ["trainer.accelerator=auto", "trainer.cuda_graphs=true"],
            "trainer.cuda_graphs=true: needs a GPU, trainer=gpu",
        ),
        (["engine=native", "model.activation=tanh"], "engine=native: must be auto or torch here"),
    ],
)
@pytest.mark.parametrize("more", [["-m", "width=4,5"], ["width=4"]], ids=["sweep", "run"])
def test_what_this_machine_lacks_is_refused_before_anything_is_written(
    command, tmp_path, monkeypatch, words, told, more
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ended = command(*more, *words, "depth=1", "steps=4", "eval_every=4", "logger=csv")
    assert ended.status.startswith(f"error: {told}")
    assert ("(2 of 2 jobs, the first width=4)" in ended.status) == ("-m" in more)
    assert list(tmp_path.rglob("*.yaml")) == []


def test_a_sweep_whose_name_has_a_reference_keeps_it(command, tmp_path):
    """It isn't looked up in whatever job comes first."""
    keys = ["steps=4", "eval_every=4", "width=4", "data.train_size=200", "data.test_size=50", "logger=none"]
    assert command("-m", "depth=${seed}", "seed=1,2", *keys).status == 0
    [sweep] = (tmp_path / "multirun").iterdir()
    assert sweep.name.startswith("depth=_{seed},seed,steps=4")
    texts = [path.read_text() for path in sweep.glob("*/.hydra/config.yaml")]
    assert [yaml.safe_load(text)["sweep"][:18] for text in texts] == ["depth=${seed},seed"] * 2


def test_a_config_that_is_lent_has_the_values_of_its_job_alone(tmp_path):
    """Whatever the job before it set, of the same keys or of others: all of it, and Hydra's part as plain values."""
    values = [
        ["width=20 measures=[]", "width=${depth} measures=[train_acc,norms]", "width=6 width=7"],
        ["fractal.nested={a:{b:2}}", "fractal.nested.a={}", "fractal.nested.a=null", "fractal.nested.a=${lr}"],
        ["curve=4", "curve.degree=3 sweep=w${width}", "hydra.job.name=mine"],
    ]
    jobs = [["fractal=plain", *" ".join(words).split()] for words in itertools.product(*values)]
    (tmp_path / "fractal").mkdir()
    (tmp_path / "fractal" / "plain.yaml").write_text(OWN["fractal/plain"])
    with borrowed(), initialize_config_dir(str(CONF), **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        loader.get_search_path().prepend("mine", str(tmp_path), "schema")
        loader = ConfigLoaderImpl(loader.get_search_path())
        master = loader.load_configuration("config", ["sweep=s", "fractal=plain"], RunMode.MULTIRUN)
        compose = Composer(loader, master)
        plain: Any = partial(OmegaConf.to_container, enum_to_str=True)
        expected = {tuple(words): plain(loader.load_sweep_config(master, words)) for words in jobs}
        for words in [*jobs, *jobs[::-2]]:
            lent = compose.lend(words)
            assert settled(plain(lent.config)) == settled(expected[tuple(words)]), words
            assert lent.of_job() == expected[tuple(words)]["hydra"]
        assert compose.lend(["width=20"]).config is compose.lend(["width=30"]).config
        assert compose.lend(["width=20"]).of_job()["run"] is compose.lend(["width=30"]).of_job()["run"]
        for words in (["width=[}"], ["optimizer.beta3=1"], ["width=1", "width.a=2"]):
            with pytest.raises(Exception) as theirs:  # noqa: PT011 (of any kind: ours is the same)
                loader.load_sweep_config(master, words)
            with pytest.raises(type(theirs.value)):
                compose.lend(words)
        assert compose.lend(["width=3"]).config.width == 3


def test_choices_of_several_groups_are_composed_seldom(monkeypatch):
    """Once for all whose files say no more than their nodes; what changes more, as images, with all others."""
    with borrowed(), initialize_config_dir(str(CONF), **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        plain = loader.load_configuration("config", ["sweep=s", "stop.patience=3"], RunMode.MULTIRUN)
        figure = loader.load_configuration("config", ["experiment=figure6"], RunMode.MULTIRUN)
        grids = [
            (plain, (["fractal=vicsek", "fractal=cantor", "fractal=carpet"], ["curve=1", "curve=4"], ["width=3"]), 1),
            (plain, (["data=fractal", "data=cifar10"], ["loss=hinge", "loss=logistic"]), 4),
            (
                figure,
                (["experiment=figure6"], ["budget=quick", "budget=paper"], ["fractal=vicsek", "fractal=cantor"]),
                2,
            ),
        ]
        for master, grid, most in grids:
            compose, composed = Composer(loader, master), []
            whole = compose._compose
            monkeypatch.setattr(
                compose, "_compose", lambda files, whole=whole, to=composed: to.append(files) or whole(files)
            )
            for chosen in itertools.product(*grid):
                found, expected = compose(chosen), loader.load_sweep_config(master, list(chosen))
                assert found == expected
                assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected)
                for name in ("fractal", "hydra", "curve"):
                    assert OmegaConf.is_struct(found[name]) == OmegaConf.is_struct(expected[name])
            assert len(composed) <= most

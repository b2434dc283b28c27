"""Other launchers and sweepers of Hydra's, as their users have them: real commands in processes of their own."""

import itertools
import json
import subprocess
import sys
from importlib.metadata import version

import hydra
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from fractal_ifs.config.fast_compose import Composer
from fractal_ifs.config.session import VERSION_BASE, borrowed
from fractal_ifs.errors import ConfigError
from fractal_ifs.files import CONF

QUICK = ["fractal=vicsek", "width=8", "depth=2", "steps=60", "eval_every=30", "data.train_size=1000"]
QUICK += ["data.test_size=200", "logger=csv"]


def trained(folder, *arguments):
    """What a sweep says, and its records by their keys."""
    done = subprocess.run(
        [sys.executable, "-m", "fractal_ifs.train", "-m", *QUICK, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in (folder / "multirun").rglob("result.json")]
    keys = ("best_test_acc", "best_step", "final_test_acc", "steps", "fingerprint", "status")
    return done.stdout + done.stderr, {(r["curve"], r["lr"]): [r[key] for key in keys] for r in records}


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


def test_optunas_parallel_trials_fuse(tmp_path):
    pytest.importorskip("optuna", reason="hydra-optuna-sweeper is not installed")
    if (plugin := version("hydra-optuna-sweeper"))[:3] != hydra.__version__[:3]:
        pytest.skip(f"hydra-optuna-sweeper {plugin} is for another Hydra")
    trials = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "sweep=trials"]
    trials += ["hydra.sweeper.study_name=${sweep}"]
    said, records = trained(tmp_path, "curve=1", "lr=interval(1e-4,1e-2)", *trials, "hydra.sweeper.direction=maximize")
    assert said.count("2 jobs in multirun/trials") == 2
    assert len(records) == 4  # each with a learning rate of its own
    assert {record[-1] for record in records.values()} == {"finished"}
    best = max(record[0] for record in records.values())
    assert f"Best value: {best}" in said


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
        with pytest.raises(ConfigError):
            compose(["=1"])

"""What Hydra documents under ``hydra.*`` holds under our launcher, or is refused: docs/hydra.md, key by key."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf

from fractal_ifs.config.names import LENGTH, run_directory, run_name, safe, sweep_directory, sweep_name
from fractal_ifs.errors import ConfigError
from fractal_ifs.training.rounds import SweepRounds

HYDRA_13 = hydra.__version__.startswith("1.3")
QUICK = ["width=4", "depth=1", "steps=20", "eval_every=10", "data.train_size=200", "data.test_size=50", "logger=none"]
SWEEP = ["-m", "curve=1,4", *QUICK, "sweep=s"]
SINGLE = "curve=1,data.test_size=50,data.train_size=200,depth=1,eval_every=10,steps=20,width=4"

# Hydra 1.4 warns of every callback of a user's.
CALLBACKS = pytest.mark.filterwarnings(r"ignore:[\s\S]*_execution_whitelist_")


def records(folder: Path) -> list[Path]:
    return sorted(folder.rglob("result.json"))


def experiment(folder: Path, text: str, name: str = "mine") -> str:
    """The word that lets Hydra find the experiment ``name``."""
    (folder / "mine" / "experiment").mkdir(parents=True, exist_ok=True)
    (folder / "mine" / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    return "hydra.searchpath=[mine]"


def refused(command, *arguments: str) -> str:
    """The one line with which a command is refused."""
    ended = command(*arguments)
    assert isinstance(ended.status, str), "accepted"
    assert ended.status.startswith("error: ")
    assert "Traceback" not in ended.err
    assert not records(Path())
    return ended.status


# hydra.launcher, hydra.sweeper, hydra.mode


def test_an_experiment_chooses_launcher_and_sweeper(command, tmp_path):
    """Where nothing is said ours are chosen, and the command line has the last word."""
    mine = experiment(tmp_path, "defaults:\n  - override /hydra/launcher: slurm\n  - override /hydra/sweeper: basic\n")

    def chosen(*arguments: str) -> list[str]:
        out = command("--cfg", "hydra", *arguments).out
        return [re.findall(rf"hydra/{what}: (\w+)", out)[-1] for what in ("launcher", "sweeper")]

    assert chosen() == ["fused", "checked"]
    assert chosen("experiment=mine", mine) == ["slurm", "basic"]
    assert chosen("experiment=mine", mine, "hydra/launcher=basic") == ["basic", "basic"]
    assert chosen("hydra/launcher=slurm") == ["slurm", "checked"]


def test_what_only_a_sweep_has_needs_m(command, tmp_path):
    assert refused(command, *QUICK, "hydra/launcher=slurm").endswith("hydra/launcher=slurm: is for a sweep: add -m")
    mine = experiment(tmp_path, "defaults:\n  - override /hydra/launcher: slurm\n")
    assert "hydra/launcher=slurm: is for a sweep" in refused(command, *QUICK, "experiment=mine", mine)
    mine = experiment(tmp_path, "hydra:\n  sweeper:\n    params:\n      curve: 1,4\n")
    assert "experiment=mine: is a sweep: add -m" in refused(command, *QUICK, "experiment=mine", mine)
    if not HYDRA_13:  # 1.3 makes it a sweep
        assert "this experiment is a sweep: add -m" in refused(command, *QUICK, "experiment=figure4")


@pytest.mark.filterwarnings("ignore:[\\s\\S]*overriding with `hydra.mode=MULTIRUN`")  # which Hydra says too
@pytest.mark.parametrize("grid", ["curve=1,4", "experiment=mine"])
def test_m_wins_over_the_mode(command, tmp_path, grid):
    """As in Hydra. Without it a grid is refused, of the command or of an experiment."""
    mine = experiment(tmp_path, "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      curve: 1,4\n")
    words = [*QUICK, "sweep=s", "hydra.mode=RUN", grid, mine]
    assert re.search(f"{grid}: (is a sweep|several values are a sweep): add -m", refused(command, *words))
    assert command("-m", *words).status == 0
    assert [json.loads(path.read_text())["curve"] for path in records(tmp_path / "multirun" / "s")] == ["1", "4"]


def test_a_job_cannot_choose_what_belongs_to_the_sweep(command, tmp_path):
    """Two experiments with a grid each would train the default network under both names."""
    line = refused(command, "-m", "experiment=table2,figure6", *QUICK)
    for name in ("table2", "figure6"):
        assert f"experiment={name}: sets hydra.sweeper, which belongs to a whole sweep: give one at a time" in line
    for name, lr in (("a", "1e-3"), ("b", "2e-3")):  # experiments that set a run's keys are swept as any choice
        experiment(tmp_path, f"lr: {lr}\n", name)
    (tmp_path / "mine" / "experiment" / "c.yaml").write_text("# @package _global_\nhydra: {job: {chdir: true}}\n")
    (tmp_path / "mine" / "experiment" / "d.yaml").write_text("# @package _global_\nhydra: {verbose: true}\n")
    subdir = "hydra.sweep.subdir=${hydra.job.num}"
    for name, told in (("c", "hydra.job.chdir=true: must be false"), ("d", "experiment=d: sets hydra.verbose")):
        words = [f"experiment=a,{name}", *QUICK, "sweep=s", "hydra.searchpath=[mine]", subdir]
        assert told in refused(command, "-m", *words)
    for launcher in ("fused", "basic"):
        swept = ["-m", "experiment=a,b", *QUICK, f"sweep={launcher}", "hydra.searchpath=[mine]"]
        assert command(*swept, f"hydra/launcher={launcher}").status == 0
        found = records(tmp_path / "multirun" / launcher)
        assert [json.loads(path.read_text())["lr"] for path in found] == [0.001, 0.002]
        assert ["experiment=a" in found[0].parent.name, "experiment=b" in found[1].parent.name] == [True, True]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: mlp", "experiment=mine: model must be keys with values; its defaults choose one by `override /model:"),
        ("defaults: [{override model: mlp}]", "experiment=mine: experiment/model is not among its defaults; another"),
    ],
)
def test_an_experiment_that_chooses_a_group_wrongly_is_told_how(command, tmp_path, text, told):
    assert told in refused(command, "experiment=mine", experiment(tmp_path, text))


def test_an_optimizer_of_ones_own_is_refused_as_such(command, tmp_path):
    folder = tmp_path / "mine" / "optimizer"
    folder.mkdir(parents=True)
    (folder / "prop.yaml").write_text("_target_: torch.optim.RMSprop\n")
    line = refused(command, "optimizer=prop", "hydra.searchpath=[mine]", *QUICK)
    assert "optimizer._target_=torch.optim.RMSprop: can't be one's own, must be optimizer=adam, adamw, sgd; " in line


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_a_key_may_refer_to_the_job(command, tmp_path, launcher):
    words = ["-m", "curve=1,4", *QUICK, "sweep=s", "seed=${hydra:job.num}", f"hydra/launcher={launcher}"]
    assert command(*words).status == 0
    assert [json.loads(path.read_text())["seed"] for path in records(tmp_path / "multirun" / "s")] == [0, 1]
    assert command(*words).status == 0  # the same numbers again, so they are finished


def test_jobs_in_several_directories_have_a_table_in_each(command, tmp_path):
    ended = command("-m", "curve=1,4", *QUICK, "sweep=x${curve.name}")
    assert ended.status == 0
    assert "2 jobs in multirun/x1, multirun/x4" in ended.out
    for name in ("x1", "x4"):
        assert f"multirun/{name}/results.csv" in ended.out
        assert len((tmp_path / "multirun" / name / "results.csv").read_text().splitlines()) == 2


def test_a_job_that_is_there_twice_is_told_as_that(command):
    line = refused(command, "-m", "lr=1e-3,1e-3", *QUICK, "sweep=s")
    assert line.startswith("error: the sweep has a job twice: ")
    assert " lr=0.001 " in line


@pytest.mark.parametrize("words", ["engine=native,torch", "data.val_size=10,20", "measures=[train_acc],[dead]"])
def test_jobs_of_one_directory_are_told_why_and_the_way_out(command, words):
    line = refused(command, "-m", words, *QUICK, "sweep=s")
    first = words.partition(",")[0]
    assert f"is that of {first} too, as no key in which they differ is part of its name; on the command line" in line


def test_jobs_named_by_their_numbers_have_directories_of_their_own(command):
    ended = command("-m", "engine=native,torch", *QUICK, "sweep=s", "hydra.sweep.subdir=${hydra.job.num}")
    assert ended.status == 0


class Told(Callback):
    """Keeps what its config tells it."""

    told: list[object] = []  # noqa: RUF012

    def __init__(self, steps: int, sweep_dir: str):
        self.told.append((steps, sweep_dir))


@CALLBACKS
def test_what_belongs_to_the_sweep_may_refer_to_a_runs_keys(command, tmp_path):
    """Which values of the command set, and every job has: nothing that differs between the jobs."""
    Told.told.clear()
    told = ["_target_=test_hydra.Told", "steps=${steps}", "sweep_dir=${hydra.sweep.dir}"]
    words = [*(f"+hydra.callbacks.mine.{word}" for word in told), "hydra.launcher.stack=${workers}", "workers=1"]
    mine = experiment(tmp_path, "hydra:\n  sweeper:\n    params:\n      eval_every: 10,${steps}\n")
    sweep = [word for word in SWEEP if not word.startswith("eval_every")]
    assert command(*sweep, *words, "experiment=mine", mine).status == 0
    assert Told.told == [(20, "multirun/s")]
    evaluated = [json.loads(path.read_text())["config"]["eval_every"] for path in records(tmp_path)]
    assert sorted(evaluated) == [10, 10, 20, 20]


@pytest.mark.parametrize("values", ["range(1,1e9)", "shuffle(range(1,1e9))"])
def test_a_range_without_an_end_in_sight_is_refused_at_once(command, values):
    told = "must be at most 10000000 jobs, not 999999999"
    assert command("-m", f"budget={values}").status == f"error: budget={values}: {told}"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("lr=range(-1e308,1e308)", "must be at most 10000000 jobs, not inf"),
        (f"seed=range(0,1{400 * '0'})", "must be range(START,STOP,STEP) of finite numbers, STEP not 0"),
    ],
)
def test_a_range_that_no_float_holds_is_refused_in_one_line(command, word, told):
    assert refused(command, "-m", word, *QUICK).endswith(told)


@pytest.mark.parametrize("word", ["curve=glob([1-4])", "fractal=glob(x*)", "seed=range(3,3)"])
def test_a_sweep_without_jobs_is_refused(command, word):
    assert f"{word}: matches no value, so the sweep has no jobs" in refused(command, "-m", word, *QUICK)


def test_the_grid_is_hydras(command, tmp_path):
    """Choices, ranges, globs, and an experiment's ``params`` below the command line's words."""
    mine = experiment(tmp_path, "hydra:\n  sweeper:\n    params:\n      curve: 1,2,3\n      seed: range(2)\n")
    assert command("-m", "experiment=mine", "curve=glob('[45]')", *QUICK, "sweep=s", mine).status == 0
    found = [json.loads(path.read_text()) for path in records(tmp_path)]
    assert sorted((record["curve"], record["seed"]) for record in found) == [("4", 0), ("4", 1), ("5", 0), ("5", 1)]


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_the_sweeper_launches_in_batches(command, tmp_path, launcher):
    words = ["seed=1,2", "hydra.sweeper.max_batch_size=3", "hydra.sweep.subdir=${hydra.job.num}"]
    ended = command(*SWEEP, *words, f"hydra/launcher={launcher}")
    assert ended.status == 0
    if launcher == "fused":
        assert "3 jobs in" in ended.out
        assert "1 job in" in ended.out
    assert [path.parent.name for path in records(tmp_path)] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_all_batches_are_checked_before_the_first_begins(command, tmp_path, launcher):
    words = ["-m", *QUICK, "sweep=s", "lr=1e-3,-1", "hydra.sweeper.max_batch_size=1", f"hydra/launcher={launcher}"]
    assert "lr=-1" in refused(command, *words)


def test_a_run_cant_lie_where_the_sweep_does(command):
    said = "error: hydra.sweep.subdir: must be a directory below that of the sweep"
    assert refused(command, "-m", *QUICK, "seed=1", "sweep=s", "hydra.sweep.subdir=.") == said


def test_a_variable_of_another_type_is_named_with_its_value(command, monkeypatch):
    monkeypatch.setenv("LAB_WIDTH", "abc")
    told = refused(command, *QUICK[1:], "width=${oc.env:LAB_WIDTH,6}")
    assert told == "error: width=${oc.env:LAB_WIDTH,6}: must be a whole number, it is abc"


def test_the_templates_among_all_choices_are_refused_with_the_way_to_leave_them_out(command):
    told = str(command("-m", "fractal=glob(*)", "seed=0,1", *QUICK, "sweep=s").status)
    assert told.endswith("; fractal=glob(*,exclude=custom) leaves it out")
    told = str(command("-m", "curve=glob(*)", *QUICK, "sweep=s").status)
    assert told.endswith("  curve=glob(*,exclude=[P,last,mass,polynomial,weights]) leaves these out")


@pytest.mark.parametrize("subdir", ["../out${seed}", "a/../../b", "${oc.env:HOME}/out"])
def test_a_run_lies_below_its_sweep(command, subdir):
    told = refused(command, "-m", *QUICK, "seed=1", "sweep=s", f"hydra.sweep.subdir={subdir}")
    assert "must be a directory below that of the sweep" in told


@pytest.mark.parametrize("subdir", [".runs/${hydra.job.num}", "a/.b${seed}"])
@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_runs_cant_lie_where_no_table_finds_them(command, subdir, launcher):
    told = refused(command, *SWEEP, f"hydra.sweep.subdir={subdir}", f"hydra/launcher={launcher}")
    assert f"hydra.sweep.subdir={subdir.partition('$')[0]}" in told
    assert "must not be hidden, or no table finds these runs" in told


@pytest.mark.parametrize(
    ("word", "allowed"),
    [
        ("hydra.sweeper.max_batch_size=0", "must be a whole number >= 1"),
        ("hydra.sweeper.best_lr=3", "must be the path of a CSV of finished runs"),
        ("hydra.launcher.executor=joblib", "must be one of auto, inline, local"),
    ],
)
def test_keys_of_sweeper_and_launcher_are_checked(command, word, allowed):
    assert f"{word}: {allowed}" in refused(command, *SWEEP, word)
    assert not Path("multirun").exists()


# hydra.job


@pytest.fixture
def seen(monkeypatch):
    """The value of a variable of the environment while each round trains."""
    values = []
    step = SweepRounds.round

    def looking(self, *arguments, **keywords):
        values.append(os.environ.get("FRACTAL_IFS_TEST"))
        return step(self, *arguments, **keywords)

    monkeypatch.setattr(SweepRounds, "round", looking)
    monkeypatch.delenv("FRACTAL_IFS_TEST", raising=False)
    return values


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_env_set_holds_in_training_and_no_longer(command, seen, launcher):
    assert command(*SWEEP, "+hydra.job.env_set.FRACTAL_IFS_TEST=yes", f"hydra/launcher={launcher}").status == 0
    assert set(seen) == {"yes"}
    assert "FRACTAL_IFS_TEST" not in os.environ


WATCHED = """
import os, sys
with open({file!r}, "a") as file:  # one write per process
    file.write(os.environ.get("FRACTAL_IFS_TEST", "unset") + " " + " ".join(sys.orig_argv).replace("\\n", " ") + "\\n")
"""


@pytest.fixture
def started(monkeypatch, tmp_path):
    """``started("spawn_main")``: the variable in each Python process that was started with such a command."""
    (tmp_path / "site").mkdir()
    file = tmp_path / "site" / "started"
    (tmp_path / "site" / "sitecustomize.py").write_text(WATCHED.format(file=str(file)))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.delenv("FRACTAL_IFS_TEST", raising=False)
    return lambda text: [line.split()[0] for line in file.read_text().splitlines() if text in line]


def test_env_set_reaches_worker_processes(command, tmp_path, started):
    words = ["engine=torch", "workers=2", "+hydra.job.env_set.FRACTAL_IFS_TEST=yes"]
    assert command(*SWEEP, *words).status == 0
    assert len(records(tmp_path)) == 2
    assert started("spawn_main") == ["yes", "yes"]


SBATCH = """#!/bin/sh
# Starts the script at once, as tasks 7_0 and 7_1 of an array, each in the queue until it ends: a copy, as Slurm does,
# since submitit moves the script as soon as it has the job's number.
for last; do true; done
cp "$last" "$0.script"
for task in 0 1; do
    touch "$0.7_$task"
    (SLURM_JOB_ID=7$task SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 \\
     SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=here sh "$0.script"; rm "$0.7_$task") >"$0.$task" 2>&1 &
done
echo Submitted batch job 7
"""
SQUEUE = """#!/bin/sh
for task in 7_0 7_1; do [ ! -e "${0%squeue}sbatch.$task" ] || echo "$task|RUNNING|None"; done
"""
SRUN = """#!/bin/sh
while case "$1" in */python*) false;; esac; do shift; done
exec "$@"
"""


def test_env_set_reaches_a_slurm_task(command, monkeypatch, tmp_path, started):
    """Of a Slurm that takes what it is given and passes on the environment; tests/slurm has a real one."""
    pytest.importorskip("submitit")
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("squeue", SQUEUE)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    words = ["hydra/launcher=slurm", "hydra.launcher.tasks=2", "+hydra.job.env_set.FRACTAL_IFS_TEST=yes"]
    ended = command(*SWEEP, *words)
    assert ended.status == 0, ended
    assert len(records(tmp_path)) == 2
    assert started("submitit.core._submit") == ["yes", "yes"]
    assert "FRACTAL_IFS_TEST" not in os.environ


def test_env_set_reaches_wandb(command, tmp_path):
    """``WANDB_MODE=disabled`` there: no W&B run is made."""
    pytest.importorskip("wandb")
    keys = [*SWEEP[:-2], "sweep=s", "logger=wandb", "+hydra.job.env_set.WANDB_MODE=disabled"]
    assert command(*keys).status == 0
    assert len(records(tmp_path)) == 2
    assert not list(tmp_path.rglob("offline-run-*"))


def test_env_set_that_differs_between_jobs_is_refused(command):
    line = refused(command, *SWEEP, "seed=1,2", "+hydra.job.env_set.FRACTAL_IFS_TEST='${seed}'")
    assert "hydra.job.env_set.FRACTAL_IFS_TEST=1: must be the same for all jobs" in line


def test_chdir(command, tmp_path):
    """A single run trains in its directory; jobs that train together can't."""
    assert "hydra.job.chdir=true: must be false where jobs train together" in refused(
        command, *SWEEP, "hydra.job.chdir=true"
    )
    assert command("curve=1", *QUICK, "hydra.job.chdir=true").status == 0
    assert [path.parent.name for path in records(tmp_path)] == [SINGLE]
    assert command(*SWEEP, "hydra.job.chdir=true", "hydra/launcher=basic").status == 0
    assert len(records(tmp_path / "multirun")) == 2


def test_paths_are_from_where_the_command_began(command, tmp_path):
    """Also where ``hydra.job.chdir`` has a job work in its own directory."""
    assert command("curve=1", *QUICK, "hydra.run.dir=first").status == 0
    there = ("continue_from=first", "kept=kept.csv", "hydra.run.dir=second", "hydra.job.chdir=true")
    assert command("curve=1", *QUICK, "steps=40", *there).status == 0
    assert "begins from step 20" in (tmp_path / "second" / "train.log").read_text()
    assert (tmp_path / "kept.csv").exists()


def test_numbers_names_and_directories_of_jobs(command, tmp_path):
    subdir = "hydra.sweep.subdir=${hydra.job.name}-${hydra.job.num}-${hydra.job.id}-${hydra.job.config_name}"
    assert command(*SWEEP, "hydra.job.name=mine", "hydra.sweep.dir=there", subdir).status == 0
    assert [str(path.parent.relative_to(tmp_path)) for path in records(tmp_path)] == [
        "there/mine-0-0-config",
        "there/mine-1-1-config",
    ]
    assert command("curve=1", *QUICK, "hydra.run.dir=one").status == 0
    assert (tmp_path / "one" / "result.json").exists()


def test_a_jobs_name_may_refer_to_its_keys(command, tmp_path):
    subdir = "hydra.sweep.subdir=${hydra.job.name}"
    assert command("-m", "seed=1,2", *QUICK, "sweep=s", "hydra.job.name=seed-${seed}", subdir).status == 0
    assert [path.parent.name for path in records(tmp_path)] == ["seed-1", "seed-2"]


def test_a_directory_that_counts_for_nothing_is_refused(command, tmp_path):
    line = refused(command, *SWEEP, "hydra.run.dir=here")
    assert line == "error: hydra.run.dir=here: counts for nothing here: a sweep's runs lie below hydra.sweep.dir"
    for word in ("hydra.sweep.dir=here", "hydra.sweep.subdir=here"):
        line = refused(command, "curve=1", *QUICK, word)
        assert line == f"error: {word}: counts for nothing here: a single run lies in hydra.run.dir; -m makes a sweep"
    assert not list(tmp_path.iterdir())
    for words, there in ((SWEEP, "swept"), (["curve=1", *QUICK], "one")):  # of both, each counts where it belongs
        assert command(*words, "hydra.run.dir=one", "hydra.sweep.dir=swept").status == 0
        assert records(tmp_path / there)


@pytest.mark.parametrize("key", ["hydra.job.name", "hydra.run.dir", "hydra.sweep.dir", "hydra.launcher.stack"])
def test_a_grid_in_a_file_has_no_keys_of_hydras(command, tmp_path, key):
    experiment(tmp_path, f"hydra: {{mode: MULTIRUN, sweeper: {{params: {{{key}: '1,2'}}}}}}\n")
    line = refused(command, "-m", "experiment=mine", *QUICK, "hydra.searchpath=[mine]")
    assert line.startswith(f"error: hydra.sweeper.params: {key}=1: must be one value: it is the same for all jobs")


def test_separators_and_left_out_keys_of_names(command, tmp_path):
    how = "hydra.job.config.override_dirname"
    words = [f"{how}.kv_sep=-", f"{how}.item_sep=_", f"{how}.exclude_keys=[width,depth,steps,logger,sweep]"]
    assert command(*SWEEP, *words).status == 0
    assert [path.parent.name for path in records(tmp_path)] == [
        f"curve-{curve}_data.test_size-50_data.train_size-200_eval_every-10" for curve in (1, 4)
    ]


# hydra.callbacks, hydra.output_subdir, hydra.verbose, logging


class Heard(Callback):
    """Writes down what it hears."""

    heard: list[tuple[str, object]] = []  # noqa: RUF012
    ends = 0

    def on_multirun_start(self, config, **_):
        self.heard.append(("multirun start", None))

    def on_multirun_end(self, config, **_):
        self.heard.append(("multirun end", self.ends))

    def on_job_start(self, config, *, task_function, **_):
        assert callable(task_function)
        assert HydraConfig.get().job.num == config.hydra.job.num
        self.heard.append((f"start {config.hydra.job.num}", config.curve.name))

    def on_job_end(self, config, job_return, **_):
        self.ends += 1
        assert job_return.status.name == "COMPLETED"
        assert Path(config.hydra.runtime.output_dir, "result.json").exists()
        self.heard.append((f"end {config.hydra.job.num}", job_return.return_value))


@CALLBACKS
@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_callbacks_hear_of_every_job(command, tmp_path, launcher):
    Heard.heard.clear()
    assert command(*SWEEP, "+hydra.callbacks.mine._target_=test_hydra.Heard", f"hydra/launcher={launcher}").status == 0
    best = [json.loads(path.read_text())["best_test_acc"] for path in records(tmp_path)]
    assert sorted(Heard.heard[1:-1], key=str) == sorted(
        [("start 0", "1"), ("start 1", "4"), ("end 0", best[0]), ("end 1", best[1])], key=str
    )
    for number in (0, 1):
        moments = [moment for moment, _ in Heard.heard]
        assert moments.index(f"start {number}") < moments.index(f"end {number}")
    # Each job has a copy of its own, under our launcher: what that assigns to itself isn't seen at the sweep's end.
    assert Heard.heard[0] == ("multirun start", None)
    assert Heard.heard[-1] == ("multirun end", 0 if launcher == "fused" else 2)


@CALLBACKS
def test_slurm_that_is_not_waited_for_hears_of_no_end(command):
    words = ["hydra/launcher=slurm", "hydra.launcher.wait=false", "+hydra.callbacks.mine._target_=test_hydra.Heard"]
    line = refused(command, *SWEEP, *words)
    assert "hydra.launcher.wait=false: must be true with hydra.callbacks.mine" in line
    line = refused(command, *SWEEP, "lr=1e-3,2e-3,4e-3", "hydra/sweeper=outward", *words[:2])
    assert "hydra.launcher.wait=false: must be true with hydra/sweeper=outward, which goes by how jobs ended" in line


def test_output_subdir(command, tmp_path):
    assert command(*SWEEP, "hydra.output_subdir=words").status == 0
    [first, second] = records(tmp_path)
    written = first.parent / "words"
    assert {path.name for path in written.iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert OmegaConf.load(written / "config.yaml").curve.name == "1"
    assert "curve=4" in (second.parent / "words" / "overrides.yaml").read_text()
    assert not list(tmp_path.rglob(".hydra"))
    assert command("-m", "curve=1,4", *QUICK, "sweep=t", "hydra.output_subdir=null").status == 0
    assert not list((tmp_path / "multirun" / "t").rglob("overrides.yaml"))


def test_the_sweep_keeps_its_own_config(command, tmp_path):
    assert command(*SWEEP).status == 0
    kept = OmegaConf.load(tmp_path / "multirun" / "s" / "multirun.yaml")
    assert "curve=1,4" in kept.hydra.overrides.task


def test_logging_of_hydra_and_of_jobs(command, tmp_path):
    ended = command(*SWEEP)
    assert "2 jobs in multirun/s" in ended.out
    assert "2 jobs in" not in command(*SWEEP[:-1], "sweep=t", "hydra/hydra_logging=none").out
    mine = experiment(
        tmp_path,
        "hydra:\n  job_logging:\n    formatters:\n      simple:\n        format: 'MINE %(message)s'\n",
    )
    named = "hydra.job_logging.formatters.simple.format='${hydra.job.name}: %(message)s'"
    assert "train: engine=torch" in command(*SWEEP[:-1], "sweep=w", "trainer.precision=64-true", "workers=1", named).out
    same = named.replace("${hydra.job.name}", "${hydra:job.name}")
    assert "train: engine=torch" in command(*SWEEP[:-1], "sweep=x", "trainer.precision=64-true", "workers=1", same).out
    words = ["experiment=mine", mine, "trainer.precision=64-true", "workers=1"]
    assert "MINE engine=torch" in command(*SWEEP[:-1], "sweep=u", *words).out
    assert "engine=torch" not in command(*SWEEP[:-1], "sweep=v", *words[2:], "hydra/job_logging=disabled").out
    for path in records(tmp_path):  # every run has its own log all the same
        assert "training from step 0 to 20" in (path.parent / "train.log").read_text()


@pytest.mark.parametrize("reference", ["hydra:job.num", "hydra.job.num", "hydra.runtime.output_dir", "curve.degree"])
def test_logging_that_differs_between_jobs_is_refused(command, tmp_path, reference):
    ended = command(*SWEEP, f"hydra.job_logging.formatters.simple.format='${{{reference}}}: %(message)s'")
    assert ended.status.startswith("error: hydra.job_logging: must refer to what is the same for all jobs")
    assert "jobs in" not in ended.out
    assert not records(tmp_path)


@pytest.mark.parametrize(("word", "level"), [("false", logging.INFO), ("true", logging.DEBUG), ("[fractal_ifs]", 10)])
def test_verbose(command, monkeypatch, word, level):
    levels = []
    step = SweepRounds.round

    def looking(self, *arguments, **keywords):
        levels.append(logging.getLogger("fractal_ifs.training").getEffectiveLevel())
        return step(self, *arguments, **keywords)

    monkeypatch.setattr(SweepRounds, "round", looking)
    assert command(*SWEEP, f"hydra.verbose={word}").status == 0
    assert set(levels) == {level}


# The command line's options


@CALLBACKS
@pytest.mark.skipif(not HYDRA_13, reason="Hydra 1.4 has no --experimental-rerun")
@pytest.mark.filterwarnings("ignore:Experimental rerun")
def test_a_pickled_job_runs_again(command, tmp_path):
    pickle = "+hydra.callbacks.pickle._target_=hydra.experimental.callbacks.PickleJobInfoCallback"
    assert command(*SWEEP, pickle).status == 0
    [first, _] = sorted(tmp_path.rglob("config.pickle"))
    assert first.with_name("job_return.pickle").exists()
    first.parents[1].joinpath("result.json").unlink()
    assert command("--experimental-rerun", str(first)).status == 0
    first.write_text("garbage")
    told = command("--experimental-rerun", str(first)).status
    assert told.startswith(f"error: --experimental-rerun={first}"[:50])
    assert "must be the file config.pickle of a job (" in told
    assert len(records(tmp_path)) == 2


def test_options_may_stand_anywhere(command, tmp_path):
    assert command(*QUICK, "-m", "curve=1,4", "sweep=s").status == 0
    assert len(records(tmp_path)) == 2


# Values as they are meant


@pytest.mark.parametrize("name", ["größe", "1e5", "12", "true", "a b"])
def test_a_sweep_may_have_any_name(command, tmp_path, name):
    assert command("-m", "curve=1,4", *QUICK, f"sweep={name}").status == 0
    [folder] = (tmp_path / "multirun").iterdir()
    assert folder.name == safe(name)
    assert json.loads(records(tmp_path)[0].read_text())["config"]["sweep"] == name


def test_a_sweep_of_an_absolute_path_lies_there(command, tmp_path):
    assert command("-m", "curve=1,4", *QUICK, f"sweep={tmp_path / 'there'}").status == 0
    assert len(records(tmp_path / "there")) == 2
    assert not (tmp_path / "multirun").exists()


def test_whole_numbers_may_have_exponents(command, tmp_path):
    assert command("curve=1", *QUICK, "steps=2e1").status == 0
    assert json.loads(records(tmp_path)[0].read_text())["config"]["steps"] == 20
    assert command("-m", "steps=1e1,2e1", *QUICK[:2], *QUICK[3:], "sweep=steps-${steps}").status == 0
    assert sorted(str(path.parent.relative_to(tmp_path / "multirun")) for path in records(tmp_path / "multirun")) == [
        f"steps-{steps}/{SINGLE.replace('curve=1,', '').replace('steps=20', f'steps={steps}')}" for steps in (10, 20)
    ]


# Names


def test_names_that_are_safe_stay_as_they_were():
    for name in (SINGLE, "curve.weights=[0,0,1,2,4],fractal=custom", "+data.note=1", "~logger.mode", "größe"):
        assert safe(name) == name


def test_names_are_safe_flat_and_told_apart():
    names = [
        "ratio=1/5",
        "ratio=1_5",
        "ratio=1:5",
        "a b",
        "a'b",
        "..",
        "x" * 300,
        "x" * 301,
        "é" * 200,
        "a\nb",
        "$HOME",
    ]
    made = [safe(name) for name in names]
    assert len(set(made)) == len(names)
    for name in made:
        assert len(name.encode()) <= LENGTH
        assert not set(name) & set("/\\ '\"\n$*?:;&|<>`")
        assert safe(name) == name
        assert name not in (".", "..")


@pytest.mark.parametrize("fractions", [1, 6])  # six make a name of more than 255 bytes
@pytest.mark.parametrize("sweep", [True, False])
def test_runs_in_directories_of_the_old_names_go_on(command, tmp_path, fractions, sweep):
    """A list with fractions made nested directories."""
    maps = ",".join(f"{{matrix:[[1/{40 + n},0],[0,1/{40 + n}]],offset:[{n}/10,0]}}" for n in range(fractions))
    words = [
        "fractal=custom",
        "fractal.depth=2",
        f"fractal.maps=[{maps}]",
        *QUICK,
        *(["-m", "sweep=s"] if sweep else []),
    ]
    assert command(*words).status == 0
    [path] = records(tmp_path)
    assert "1 of 1 jobs are finished" in command(*words).out
    assert records(tmp_path) == [path]
    if fractions > 1:
        return
    old = path.parents[1] / ",".join(
        sorted(word for word in words if "=" in word and word[:6] not in ("logger", "sweep="))
    )
    old.parent.mkdir(parents=True)
    path.parent.rename(old)
    assert "1 of 1 jobs are finished" in command(*words).out
    assert records(tmp_path) == [old / "result.json"]


def test_directories_of_the_old_names(tmp_path, monkeypatch):
    """A list with fractions made nested directories; a sweep's absolute path lay below multirun/."""
    monkeypatch.chdir(tmp_path)
    old = Path("multirun/s/fractal.ratio=1/5,seed=1")
    assert run_directory("multirun/s", "fractal.ratio=1/5,seed=1") != "fractal.ratio=1/5,seed=1"
    old.mkdir(parents=True)
    assert run_directory("multirun/s", "fractal.ratio=1/5,seed=1") == "fractal.ratio=1/5,seed=1"
    assert run_directory("multirun/s", "fractal.ratio=1/5,seed=2").startswith("fractal.ratio=1_5,seed=2-")
    Path("multirun/abs/path").mkdir(parents=True)
    assert sweep_directory("/abs/path") == "multirun//abs/path"
    assert sweep_directory("/abs/other") == "/abs/other"
    assert len(sweep_directory("x" * 300)) <= len("multirun/") + LENGTH
    for name in ("", "."):
        with pytest.raises(ConfigError, match="must be a name"):
            sweep_directory(name)


def test_a_sweep_stays_below_multirun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "multirun/s").mkdir(parents=True)
    for name in ("..", "../escape", "s/../../escape"):
        with pytest.raises(ConfigError, match=r"must be a path below multirun/, or an absolute path"):
            sweep_directory(name)
    (tmp_path / "escape").mkdir()
    (tmp_path / "escape/multirun.yaml").touch()
    assert sweep_directory("../escape") == "multirun/../escape"  # as earlier versions began it


def test_quotes_that_change_nothing_are_not_in_a_name(command, tmp_path):
    words = [*QUICK[1:], "width='4'", 'curve="1"', "-m"]
    assert command(*words, "sweep=s").status == 0
    [path] = records(tmp_path)
    assert path.parent.name == SINGLE
    former = safe(run_name([word for word in words if "=" in word], ["logger"]))
    path.parent.rename(path.parents[1] / former)
    assert "1 of 1 jobs are finished" in command(*words, "sweep=s").out
    assert [path.parent.name for path in records(tmp_path)] == [former]


def test_a_sweeps_name_is_of_its_words():
    words = ["-m", "fractal=vicsek", "curve=1,4", "width=range(1,9)", "logger=csv", "hydra.launcher.stack=3"]
    assert sweep_name(words) == "fractal=vicsek,curve,width"
    assert sweep_name(["-m", "kept=x.csv"]) == "default"


@pytest.mark.parametrize(
    ("swept", "more"),
    [("optimizer.betas=[.9,.99],[.9,.999]", "[.8,.99]"), pytest.param("curve='1','4'", "'2'", marks=pytest.mark.slow)],
)
def test_a_sweep_over_lists_or_quoted_values_keeps_its_name(command, tmp_path, swept, more):
    """And one that lies under its older name, which had the values, goes on there."""
    words = ["-m", *QUICK[2:], "width=4", "depth=1", "optimizer=adam"]
    assert command(*words, swept).status == 0
    assert command(*words, f"{swept},{more}").status == 0
    [sweep] = (tmp_path / "multirun").iterdir()
    assert sweep.name.endswith("," + swept.partition("=")[0])
    assert len(records(tmp_path)) == 3
    former = f"{sweep.name.rpartition(',')[0]},{swept}"
    for name in (former, safe(former)):
        older = sweep.with_name(name)
        sweep.rename(older)
        assert "2 of 2 jobs are finished already" in command(*words, swept).out
        assert [*(tmp_path / "multirun").iterdir()] == [older]
        sweep = older


@pytest.mark.parametrize("value", ["1,2", "[1],[2]", "'a','b'", "{x:1},{x:2}", "range(3)", "interval(0,1)", "glob(*)"])
def test_swept_values_are_in_no_name(value):
    assert sweep_name(["-m", "seed=1", f"+a.b={value}"]) == "seed=1,+a.b"


@pytest.mark.parametrize("value", ["1", "[1,2]", "'a,b'", "{x:1,z:2}", "sort([2,1])", "[1,2"])
def test_one_value_is_in_the_name(value):
    assert sweep_name(["-m", "seed=1", f"+a.b={value}"]) == f"seed=1,+a.b={value}"


def test_keys_of_loggers_are_in_no_name(command, tmp_path):
    """What lies under a name of an earlier version, which had them, goes on there."""
    words = ["-m", "curve=1", "seed=1,2", *QUICK[:-1], "logger=wandb", "logger.mode=disabled"]
    assert command(*words).status == 0
    assert command(*words, "logger.tags=[a,b]", "logger.group=mine").status == 0
    [sweep] = (tmp_path / "multirun").iterdir()
    assert "logger" not in sweep.name
    assert not [path for path in records(tmp_path) if "logger" in path.parent.name]
    for path in records(tmp_path):
        path.parent.rename(path.parents[1] / path.parent.name.replace("seed", "logger.mode=disabled,seed"))
    sweep.rename(sweep.with_name(f"{sweep.name},logger.mode=disabled"))
    assert "2 of 2 jobs are finished already" in command(*words).out
    assert len(records(tmp_path)) == len([*(tmp_path / "multirun").iterdir()]) + 1 == 2


def test_an_experiment_alone_names_its_sweep_and_its_run(command, tmp_path):
    """So that the next one isn't refused as another config's. What lies under the older names goes on there."""
    quick = "".join(
        f"{key}: {value}\n" for key, value in (("steps", 20), ("eval_every", 10), ("width", 4), ("depth", 1))
    )
    for name in ("a", "b"):
        mine = experiment(tmp_path, f"{quick}data: {{train_size: 200}}\nseed: {'ab'.index(name)}\n", name)
        assert command(f"experiment={name}", mine, "logger=none").status == 0
        assert command("-m", f"experiment={name}", mine, "logger=none").status == 0
    found = {str(path.parent.relative_to(tmp_path)) for path in records(tmp_path)}
    places = {name: ("outputs", f"multirun/experiment={name}") for name in ("a", "b")}
    assert found == {f"{place}/experiment={name}" for name, some in places.items() for place in some}
    before = tmp_path / "multirun" / "default"
    (tmp_path / "multirun" / "experiment=a").rename(before)
    assert "1 of 1 jobs are finished" in command("-m", "experiment=a", mine, "logger=none").out
    for path in (tmp_path / "outputs" / "experiment=a").iterdir():
        path.rename(tmp_path / "outputs" / path.name)
    assert command("experiment=a", mine, "logger=none").status == 0
    assert not any((tmp_path / "outputs" / "experiment=a").iterdir())


def test_a_runs_name_is_hydras():
    words = ["width=4", "+data.note=1", "curve=1", "sweep=s", "logger=csv", "fractal@x=vicsek"]
    assert run_name(words, ["sweep", "logger"]) == "+data.note=1,curve=1,fractal@x=vicsek,width=4"
    assert run_name(words, ["fractal", "data.note", "sweep"], "_", "-") == "curve-1_logger-csv_width-4"


APPLICATION = """
import hydra
from fractal_ifs import FractalDataModule, register_configs
from hydra import compose, initialize_config_module

VERSION = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}


def said(config):
    data = FractalDataModule(config.fractal, config.curve, config.data, config.seed, config.batch_size)
    data.setup()
    print(config.width, config.lr, config.fractal.name, len(data.points.x_train))


register_configs()
"""
COMPOSED = """
with initialize_config_module("fractal_ifs.conf", **VERSION):
    said(compose("config", ["fractal=vicsek", "curve=4", "width=20", "lr=1e-2", "data.train_size=1e3"]))
"""
OF_ONES_OWN = """
hydra.main(config_path="pkg://fractal_ifs.conf", config_name="config", **VERSION)(said)()
"""


def application(tmp_path, source: str, *words: str) -> subprocess.CompletedProcess:
    (tmp_path / "app.py").write_text(APPLICATION + source)
    call = [sys.executable, "app.py", *words]
    return subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=300)


def test_the_compose_api(tmp_path):
    ended = application(tmp_path, COMPOSED)
    assert (ended.returncode, ended.stdout) == (0, "20 0.01 vicsek 1000\n"), ended.stderr


@pytest.mark.slow
def test_an_application_of_ones_own(tmp_path):
    words = ["data.train_size=100", "logger=none"]
    ended = application(tmp_path, OF_ONES_OWN, *words)
    assert (ended.returncode, ended.stdout) == (0, "100 0.0005 cantor2d 100\n"), ended.stderr
    ended = application(tmp_path, OF_ONES_OWN, "-m", *words, "width=7,8", "hydra/launcher=basic")
    assert ended.returncode == 0, ended.stderr
    assert re.findall("^[78] .*", ended.stdout, re.M) == ["7 0.0005 cantor2d 100", "8 0.0005 cantor2d 100"]
    ended = application(tmp_path, OF_ONES_OWN, "-m", *words, "width=7,8")
    assert ended.returncode == 1
    assert "hydra/launcher: must be basic here" in ended.stderr

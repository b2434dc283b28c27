"""What a config refuses: in one line that names the key and the value, before anything runs."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from fractal_ifs import ConfigError
from fractal_ifs.config import run
from fractal_ifs.config.compose import compose
from fractal_ifs.config.keys import checked
from fractal_ifs.config.model import MLPModel
from fractal_ifs.config.plugins import check_plugin_keys
from fractal_ifs.config.words import quoted

# If anything slips through, it must at least be over soon.
TINY = ["steps=10", "eval_every=10", "width=4", "depth=1", "data.train_size=200", "data.test_size=50", "logger=none"]

COUNTS = ("depth", "width", "steps", "batch_size", "eval_every")
BAD = [
    ("fractal=viscek", "did you mean vicsek"),
    ("fractal=null", "one name"),
    ("curve=[1,4]", "one name"),
    ("fractal=7", "must be one of cantor"),
    ("=3", "KEY=VALUE"),
    ("curve=polynomal", "did you mean polynomial"),
    ("curve=9", "must be one of 1, 2, 3, 4, 5, 6"),
    ("experiment=tabel1", "did you mean table1"),
    ("logger=wandbb", "did you mean wandb"),
    ("trainer=tpu", "must be one of cpu, ddp, gpu"),
    *(
        (f"{key}={value}", "")
        for key in ("depth", "width", "steps", "batch_size", "eval_every")
        for value in (0, -3, 2.5)
    ),
    ("steps=many", "many"),
    ("depth=true", "depth=true: must be a whole number"),
    ("depth=null", "null"),
    *((f"lr={value}", "must be a finite number > 0") for value in ("0", "-1e-3", "nan", "inf")),
    ("lr=fast", "fast"),
    ("batch_size=201", "must be at most data.train_size=200"),
    ("seed=-1", "must be a whole number >= 0"),
    ("seed=0.5", "0.5"),
    ("workers=-1", "must be a whole number >= 0"),
    *((f"~{group}", f"~{group}: every run needs one") for group in ("loss", "stop", "fractal", "model")),
    ("loss=hunge", "must be one of cross_entropy, exponential, hinge, logistic, squared, squared_hinge"),
    ("optimizer=lion", "must be one of adam, adamw, sgd"),
    ("engine=metal", "must be one of auto, native, cuda, torch"),
    ("model.init=zeros", "must be one of paper, theory, pytorch"),
    ("model.sum_last=7", "must be true or false"),
    ("data.balanced=7", "must be true or false"),
    ("data.margin=-1", "must be"),
    ("data.margin=nan", "must be"),
    ("data.margin=0.2", "data.margin=0.2: must be < 0.00411523, else K_5^margin of cantor2d has no point left"),
    ("data.train_size=0", "must be a whole number >= 1"),
    ("fractal.depth=0", "must be a whole number >= 1"),
    ("fractal.depth=2.5", "must be a whole number >= 1"),
    ("fractal.depth=50", "float32"),
    ("trainer.precision=8", "must be one of 32-true"),
    ("trainer.accelerator=abacus", "must be one of cpu, gpu, auto"),
    ("trainer.devices=0", "must be"),
    ("trainer.threads=0", "must be a whole number >= 1"),
    ("trainer.compile=1", "must be true or false"),
    ("trainer.cuda_graphs=true", "needs a GPU"),
    ("trainer.tf32=true", "trainer.tf32=true: needs a GPU, trainer=gpu"),
    ("trainer.accelerator=gpu trainer.tf32=true trainer.precision=bf16-mixed", "must be false with trainer.precision"),
    ("width=1000000 depth=5", "GiB of memory, this machine has"),
    ("data.train_size=100000000000", "<= 4294967295"),
    ("batch_size=40000 data.train_size=40000 width=1000000", "GiB of memory, this machine has"),
    ("widht=10", "there is no such key; did you mean width?"),
    ("optimiser=sgd", "there is no such key; did you mean optimizer=NAME?"),
    ("curves=4", "there is no such key; did you mean curve=NAME?"),
    ("activation=tanh", "there is no such key; did you mean model.activation?"),
    ("momentum=.9", "there is no such key; did you mean optimizer.momentum?"),
    ("warmup=5", "there is no such key; did you mean schedule.warmup?"),
    ("learning_rate=1", "there is no such key; did you mean lr?"),
    ("num_layers=1", "there is no such key; did you mean depth?"),
    ("epochs=1", "there is no such key; did you mean steps?"),
    ("gradient_clip_val=1", "there is no such key; did you mean trainer.gradient_clip_val?"),
    ("optimizer.name=sgd", "the keys here are those of adam or adamw; optimizer=sgd brings its own"),
    ("model.name=cnn", "the keys here are those of mlp; model=cnn brings its own"),
    ("data.name=cifar10", "the keys here are those of fractal; data=cifar10 brings its own"),
    ("logger.name=wandb", "the keys here are those of csv or none; logger=wandb brings its own"),
    ("logger=wandb logger.tags=[" + "x" * 65 + "]", "must be a list of texts of at most 64 characters"),
    ("logger=wandb logger.group=", "must be null or a text of at most 128 characters"),
    ("logger=[wandb,csv]", "logger.name=csv: the keys here are those of wandb; logger=csv brings its own"),
    ("model.hieght=10", "there is no such key"),
    ("curve.degre=1", "there is no such key"),
    ("curve=weights", "this key has no default"),
    ("curve=weights curve.weights=[1,-2,3,4,5]", "must not be negative"),
    ("curve=weights curve.weights=[0,0,0,0,0]", "must not all be zero"),
    ("curve=weights curve.weights=[1,2]", "must have 5 numbers"),
    ("curve=P curve.P=[0.5,0.9,0.8,1,1,1]", "must be nondecreasing"),
    ("curve=P curve.P=[0.4,0.5,0.8,1,1,1]", "must be nondecreasing from P(0) = 1/2"),
    ("curve=polynomial curve.degree=-1", "must be a number >= 0"),
    ("fractal=custom fractal.maps=[{matrix:[[0,0],[0,0]],offset:[0,0]}]", "singular"),
    ("fractal=custom fractal.maps=[{matrix:[[2,0],[0,0.5]],offset:[0,0]}]", "must contract"),
    ("width=10,20", "width"),
    ("depth", "depth"),
    ("hydra.run.dir=/dev/null/x", "/dev/null/x"),
    ("curve.weights=[1,2", "curve.weights=[1,2: can't be read; the bracket [ is not closed"),
    ("curve.weights=[1,2)]", "can't be read; ) closes no bracket"),
    ('curve.weights=["[",#]', "can't be read; a value with special characters needs two pairs of quotes"),
    ("fractal=['\x1b']", r"fractal=['\x1b']: must be one name"),
    ("-m sweep=.", "sweep=.: must be a name, or the path of a directory"),
    ("-m sweep=..", "sweep=..: must be a path below multirun/, or an absolute path"),
    ("-m sweep=../escape", "sweep=../escape: must be a path below multirun/, or an absolute path"),
    ("-m sweep=.hidden", "sweep=.hidden: must not be hidden, or no table of multirun/ finds its runs"),
]


@pytest.mark.parametrize(("arguments", "reason"), BAD, ids=[arguments for arguments, _ in BAD])
def test_bad_input_is_refused_in_one_line(command, tmp_path, arguments, reason):
    ended = command(*TINY, *arguments.split())
    assert isinstance(ended.status, str), "accepted"
    assert ended.status.startswith("error: ")
    assert "\n" not in ended.status
    assert "Traceback" not in ended.out + ended.err
    key, _, value = arguments.split()[-1].partition("=")
    assert key.split(".")[-1].split("/")[-1] in ended.status  # names the key ...
    spelled_otherwise = ("null", "0", "-1e-3", "inf")
    if value and "no such key" not in reason and "[" not in value and value not in spelled_otherwise:
        assert value.lower() in ended.status.lower()  # ... and the value
    assert reason in ended.status
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("hydra.launcher.stack=-5", "hydra.launcher.stack=-5: must be a whole number >= 0"),
        ("hydra.launcher.executor=bogus", "hydra.launcher.executor=bogus: must be one of auto, inline, local"),
        ("hydra/launcher=slurm hydra.launcher.tasks=0", "hydra.launcher.tasks=0: must be a whole number >= 1"),
        ("hydra/launcher=slurm hydra.launcher.setup=load", "hydra.launcher.setup=load: must be a list"),
        ("hydra/launcher=slurm hydra.launcher.more=qos", "hydra.launcher.more=qos: must be keys with values"),
        ("logger=wandb logger.mode=offlin", "logger.mode=offlin: must be one of online, offline, disabled"),
        ("stop.patience=-1", "stop.patience=-1: must be a whole number >= 1 and <= 1e9, or null"),
        ("logger=wandb logger.timeout=abc", "logger.timeout=abc: must be a finite number > 0"),
        ("+model.note=1", "model.note=1: there is no such key"),
        ("hydra.launcher.stac=2", "hydra.launcher.stac=2: there is no such key; did you mean stack?"),
        ("+hydra.launcher.foo=2", "foo=2: there is no such key; hydra/launcher=fused has executor, stack"),
        ("hydra.launcher={foo:2}", "foo=2: there is no such key; hydra/launcher=fused has executor, stack"),
        ("++hydra.launcher.tasks=2", "tasks=2: there is no such key; hydra/launcher=fused has executor, stack"),
        (
            "hydra/launcher=slurm hydra.launcher.partitoin=x",
            "partitoin=x: there is no such key; did you mean partition?",
        ),
        (
            "hydra/launcher=slurm +hydra.launcher.foo=2",
            "foo=2: there is no such key; hydra/launcher=slurm has partition,",
        ),
        ("hydra/launcher=basic +hydra.launcher.n_jobs=2", "there is no such key; hydra/launcher=basic has none"),
        ("hydra/launcher=joblib hydra.launcher.njobs=3", "njobs=3: there is no such key; did you mean n_jobs?"),
        (
            "hydra/launcher=joblib +hydra.launcher.foo=3",
            "foo=3: there is no such key; hydra/launcher=joblib has n_jobs",
        ),
        ("hydra.sweeper.parms.lr=1", "hydra.sweeper.parms=1: there is no such key; did you mean params?"),
        (
            "+hydra.sweeper.foo=2",
            "hydra.sweeper.foo=2: there is no such key; hydra/sweeper=checked has max_batch_size,",
        ),
        (
            "hydra/sweeper=basic +hydra.sweeper.best_lr=null",
            "there is no such key; hydra/sweeper=basic has max_batch_size",
        ),
        ("hydra.searchpath=[.] hydra.launcher.foo=2", "hydra.launcher.foo=2: there is no such key"),
        ("hydra.searchpath=[.] +hydra.launcher.foo=2", "hydra.launcher.foo=2: there is no such key; keys are executor"),
        ("hydra.searchpath=[.] +hydra.sweeper.foo=2", "hydra.sweeper.foo=2: there is no such key; keys are max_batch"),
    ],
)
def test_keys_of_launchers_and_loggers_are_refused_in_one_line(command, tmp_path, argument, reason):
    ended = command("-m", "curve=1,4", *TINY, *argument.split())
    assert reason in ended.status
    assert "Error in call" not in ended.status
    assert "to add one" not in ended.status
    assert not list(tmp_path.rglob("overrides.yaml"))
    if "there is no such key" in reason and "searchpath" not in argument:  # an only run would not make the launcher
        assert reason in command("curve=1", *TINY, *argument.split()).status


def test_any_option_of_sbatch_can_be_added(command):
    told = str(command("-m", "curve=1,4", "hydra/launcher=slurm", "hydra.launcher.more.qos=long").status)
    assert told.endswith("hydra.launcher.more.qos=long: there is no such key; to add one: +hydra.launcher.more.qos=...")


def test_a_key_that_is_like_none_of_its_group_has_no_hint(command):
    assert str(command("model.forier=3").status) == "error: model.forier=3: there is no such key"
    assert str(command("model.nois=3").status) == "error: model.nois=3: there is no such key; did you mean model.noise?"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("hydra/sweeper=optuna hydra.sweeper.n_trials=0", "n_trials=0: must be a whole number >= 1"),
        ("hydra/sweeper=optuna hydra.sweeper.n_jobs=0", "n_jobs=0: must be a whole number >= 1"),
        ("hydra/sweeper=optuna hydra.sweeper.n_jobs=-1", "n_jobs=-1: must be a whole number >= 1"),
        ("hydra/sweeper=optuna hydra.sweeper={n_jobs:-1}", "n_jobs=-1: must be a whole number >= 1"),
        ("experiment=optuna hydra.sweeper.n_trials=-2", "n_trials=-2: must be a whole number >= 1"),
        ("hydra/launcher=joblib hydra.launcher.n_jobs=0", "n_jobs=0: must be a whole number >= 1, or below 0"),
        ("hydra/launcher=joblib hydra.launcher.n_jobs=-1", None),
        ("hydra/sweeper=optuna hydra.sweeper.n_trials=1 hydra.sweeper.n_jobs=1", None),
    ],
)
def test_what_the_packages_of_others_dont_check_is_refused_before_a_job_begins(words, reason):
    if reason is None:
        check_plugin_keys(words.split(), "fused", "checked")
        return
    with pytest.raises(ConfigError, match=rf"^hydra\.(sweeper|launcher)\.{reason}"):
        check_plugin_keys(words.split(), "fused", "checked")


def test_a_choice_that_is_no_name_has_no_keys():
    """conf/config.yaml isn't a launcher."""
    check_plugin_keys(["hydra/launcher=../../config", "+hydra.launcher.foo=2"], "fused", "checked")


def test_a_reference_to_nothing_is_one_line(command, capsys, recwarn):
    ended = command("lr=${stepz}")
    assert ended.status == "error: lr=${stepz}: there is no such key to refer to"
    assert not list(recwarn)
    assert command("-m", "lr=${stepz}", "curve=1,4").status.startswith(f"{ended.status} (2 of 2 jobs")
    ended = command("seed=${hydra:job.num}")  # which only a sweep's jobs have
    assert ended.status == "error: seed=${hydra:job.num}: must be a reference to a value, here there is none"


def test_model_cnn_with_a_fractal(command):
    ended = command(*TINY, "model=cnn", "fractal=vicsek")
    assert isinstance(ended.status, str)
    assert "model" in ended.status
    assert "\n" not in ended.status


def test_too_little_disk(command, monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=4_000_000))
    for arguments in (TINY, ["-m", "curve=1,4", *TINY]):
        ended = command(*arguments)
        assert isinstance(ended.status, str)
        assert "MiB of free disk" in ended.status
        assert "\n" not in ended.status
    assert not list(tmp_path.rglob("result.json"))


def test_no_gpu(command):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    ended = command(*TINY, "trainer=gpu")
    assert "there is no GPU here" in ended.status


@pytest.mark.parametrize("argument", ["depth=0", "--help"])
def test_a_refusal_and_help_need_nothing_heavy(tmp_path, argument):
    """What makes them fast; and the exit status of the real command."""
    heavy = ("numpy", "torch", "pytorch_lightning", "wandb", "pandas", "scipy", "matplotlib", "rich")
    program = (
        f"import sys, runpy; sys.argv = ['train', {argument!r}]\n"
        "try: runpy.run_module('fractal_ifs.train', run_name='__main__')\n"
        f"finally: print([m for m in {heavy} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert found.stdout.splitlines()[-1] == "[]"
    if argument == "--help":
        assert found.returncode == 0
    else:
        assert found.returncode == 1
        assert found.stderr.strip() == "error: depth=0: must be a whole number >= 1 and <= 100000"


def test_the_defaults_are_the_papers_protocol():
    config = compose()
    expected = {"depth": 5, "width": 100, "lr": 5e-4, "batch_size": 100, "steps": 1_000_000, "eval_every": 10_000}
    expected |= {"loss": "hinge", "optimizer": "adam", "schedule": "constant", "seed": 0}
    assert {key: config.plain()[key] for key in expected} == expected
    assert (config.fractal.name, config.fractal.depth, config.curve.name) == ("cantor2d", 5, "1")
    assert (config.data.train_size, config.data.test_size, config.model.init) == (50_000, 5_000, "paper")


def test_keywords_are_the_command_line():
    config = compose(fractal="vicsek", curve="weights", curve__weights=[1, 2], fractal__depth=2, model__sum_last=True)
    assert (config.fractal.name, config.fractal.depth) == ("vicsek", 2)
    assert config.curve.keys["weights"] == [1, 2]
    assert isinstance(config.model, MLPModel)
    assert config.model.sum_last is True
    with pytest.raises(ConfigError, match="did you mean vicsek"):
        compose(fractal="viscek")
    with pytest.raises(ConfigError, match="widht=3: there is no such key; did you mean width"):
        compose(widht=3)


def test_the_fingerprint_is_of_what_can_change_a_result():
    def of(**keys):
        return compose(**keys).fingerprint

    same = {of(), of(engine="torch"), of(logger="csv"), of(workers=3), of(sweep="other"), of(overwrite=True)}
    assert len(same) == 1
    changed = {"seed": 1, "lr": 1e-3, "curve": 4, "fractal__depth": 4, "data__margin": 1e-3, "model__sum_last": True}
    changed |= {"trainer__precision": "bf16-mixed", "loss": "logistic", "data__balanced": True, "eval_every": 5000}
    assert len({of(**{key: value}) for key, value in changed.items()} | same) == len(changed) + 1


def test_options_of_hydra_that_exclude_each_other_are_one_line(command):
    assert command("-m", "--cfg", "job").status.startswith("error: Only one of --run, --multirun, --cfg")


@pytest.mark.parametrize(
    ("value", "hint", "limits", "found"),
    [
        (3, int, {"least": 3, "most": 3}, 3),
        ("12", int, {"most": 12}, 12),
        ("1/4", float, {"above": 0}, 0.25),
        (["1e-3", 2], tuple[float, ...], {"above": 0}, (0.001, 2.0)),
        ([[5, 3], (10, 4)], tuple[tuple[int, int], ...], {"least": 3}, ((5, 3), (10, 4))),
        ([], tuple[int, ...], {"empty": True}, ()),
        (["1", 4], tuple[str | int, ...], {}, ("1", 4)),
        (None, tuple[int, ...] | None, {"least": 1}, None),
        (["a"], str | tuple[str, ...], {}, ("a",)),
        (["a", "b"], Sequence[str], {}, ["a", "b"]),
        ({"a": [1]}, Mapping[str, Any], {}, {"a": [1]}),
    ],
)
def test_a_value_becomes_what_its_type_says(value, hint, limits, found):
    result = checked("key", value, hint, limits)
    assert result == found
    assert type(result) is type(found)


@pytest.mark.parametrize(
    ("value", "hint", "limits", "allowed"),
    [
        (4, int, {"least": 1, "most": 3}, "a whole number >= 1 and <= 3"),
        (1, float, {"above": 0, "below": 1}, "a finite number > 0 and < 1"),
        ("1/", float, {}, "a finite number"),
        ("/2", float, {}, "a finite number"),
        ("1/0", float, {}, "a finite number"),
        ([], tuple[int, ...], {}, "a list that is not empty, each entry a whole number"),
        ([1, 0], tuple[int, ...], {"least": 1, "empty": True}, "a list, each entry a whole number >= 1"),
        ("12", tuple[int, ...], {}, "a list that is not empty, each entry a whole number"),
        ([None], tuple[int | None, ...], {}, "a list that is not empty, each entry a whole number"),
        ([[1]], tuple[tuple[int, int], ...], {"empty": True}, "a list, each entry [a whole number, a whole number]"),
        ([1.5], tuple[str | int, ...], {"empty": True}, "a list, each entry text or a whole number"),
        (3, str | Literal[1, 2], {}, "text or one of 1, 2"),
        ("ab", Sequence[str], {"empty": True}, "a list, each entry text"),
        ([1], Mapping[str, Any], {}, "keys with values"),
    ],
)
def test_a_bad_value_is_told_what_is_allowed(value, hint, limits, allowed):
    with pytest.raises(ConfigError) as told:
        checked("key", value, hint, limits)
    assert str(told.value) == f"key={value}: must be {allowed}"


@pytest.mark.parametrize("hint", [set[int], bytes, tuple[bytes, ...], bytes | None])
def test_a_type_that_no_converter_knows_is_an_error(hint):
    with pytest.raises(TypeError, match="no converter knows it"):
        checked("key", [1], hint, {})


@given(st.text(alphabet="ab\\'\"${}[],=é~ ", min_size=1, max_size=12).filter(lambda text: "${" not in text))
@settings(max_examples=200)
def test_any_text_stays_as_it_is_in_quotes(text):
    [override] = OverridesParser.create().parse_overrides([f"sweep={quoted(text)}"])
    assert override.value() == text


@pytest.mark.parametrize("name", ["SLURM_CPUS_PER_TASK", "SLURM_RESTART_COUNT"])
def test_a_number_of_any_length_in_the_environment_is_one_line(command, monkeypatch, name):
    monkeypatch.setenv(name, "5" * 5000)
    told = command("curve=1", *TINY).status
    assert told.startswith(f"error: {name}=555")
    assert "must be a whole number" in told
    assert len(told) < 200


def test_groups_are_read_once_for_many_jobs_however_many_others_were_read_before():
    """As in a long notebook: the groups of its last sweep are remembered, not those of its first."""
    for number in range(run.MOST_READ + 1):
        run._group("stop", {"accuracy": 1 - 1e-6 * number, "patience": None})
    keys = {"accuracy": 0.123, "patience": None}
    first = run._group("stop", keys)
    assert run._group("stop", dict(keys)) is first
    assert run._group("stop", keys | {"accuracy": 0.124}) != first

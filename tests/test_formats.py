"""Contracts that evolve: what older versions left is read, recognised and gone on from, whatever keys came since."""

import csv
import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass, fields, make_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import changed, read_checkpoint, small, undigested
from test_images import binary, parts

from fractal_ifs import load
from fractal_ifs.config import fractal as fractal_keys
from fractal_ifs.config.compose import compose
from fractal_ifs.config.data import ImageData
from fractal_ifs.config.fractal import Curve, Fractal
from fractal_ifs.config.keys import key
from fractal_ifs.config.run import Job, RunConfig, placement
from fractal_ifs.engines import cpp
from fractal_ifs.errors import ConfigError
from fractal_ifs.files import CONF
from fractal_ifs.fractals.named import read
from fractal_ifs.results import finished_runs, rows
from fractal_ifs.results.protocol import keys_of_difference, setting_of
from fractal_ifs.runs import versions
from fractal_ifs.runs.finished import check_same
from fractal_ifs.runs.records import FORMAT, KEYS, NotUnderstood, RunRecord, read_begun, read_record
from fractal_ifs.sweeps import status

FORMAT1 = Path(__file__).parent / "fixtures" / "format1"
FORMAT2 = FORMAT1.with_name("format2")
RUNS = json.loads((FORMAT1 / "expected.json").read_text())["runs"]
REPRODUCTION = Path(__file__).parents[1] / "docs" / "reproduction"
STATE = ("params", "exp_avg", "exp_avg_sq")


def digest(state, name):
    return hashlib.sha256(state[name].contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("name", RUNS)
def test_format_1_is_read(name):
    directory, expected = FORMAT1 / name, RUNS[name]
    record, begun, state = read_record(directory), read_begun(directory), read_checkpoint(directory)
    found = record or begun
    assert found is not None
    assert state is not None
    assert found.config.fingerprint == state["fingerprint"] == expected["fingerprint"]
    assert [digest(state, part) for part in STATE] == [expected[part] for part in STATE]
    if record is not None:
        assert record.status == expected["status"]
        assert record.best_test_acc == expected["best_test_acc"]
        assert (record.native_build, record.git_modified) == (None, None)  # nobody knows any more
        assert json.loads((directory / "result.json").read_text())["fingerprint"] == record.fingerprint
        read_back = load(directory)
        assert len(read_back.history) == len(expected["history"])
        assert sum(p.numel() for p in read_back.model.parameters()) == record.params


@pytest.fixture
def beside_images(tmp_path):
    """The fixtures' directories and the images that the CNNs were trained on, in tmp_path."""
    (tmp_path / "images").mkdir()
    for name, (x, y) in parts(12).items():
        (tmp_path / "images" / f"{name}.bin").write_bytes(binary(x, y))
    return tmp_path


def native(expected):
    """Whether all bits are the native engine's. PyTorch makes a later layer's inputs, with kernels of the processor."""
    return expected["isa"] and "training=layerwise" not in expected["command"]


def words(expected):
    return expected["command"][expected["command"].index("fractal_ifs.train") + 1 :]


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if "after" not in run and "/" not in name])
def test_a_finished_run_of_format_1_is_not_trained_again(name, command, beside_images, monkeypatch):
    if RUNS[name]["isa"]:
        monkeypatch.setenv("FRACTAL_IFS_ISA", RUNS[name]["isa"])
    directory = Path(shutil.copytree(FORMAT1 / name, beside_images / name))
    before = {path: path.read_bytes() for path in directory.glob("*.*") if path.is_file()}
    ended = command(*words(RUNS[name]))
    expected = f"error: {directory}: the run diverged; try a smaller lr" if "diverged" in name else 0
    assert ended.status == expected
    assert {path: path.read_bytes() for path in before} == before


def test_a_finished_sweep_of_format_1_is_recognised_and_joined(command, tmp_path, monkeypatch):
    monkeypatch.setenv("FRACTAL_IFS_ISA", "base")
    shutil.copytree(FORMAT1 / "sweep_finished", tmp_path / "sweep_finished")
    expected = next(run for name, run in RUNS.items() if name.startswith("sweep_finished"))
    ended = command(*(word.replace("curve=1,4", "curve=1,4,6") for word in words(expected)))
    assert ended.status == 0, ended.status
    assert "2 of 3 jobs are finished already" in ended.out
    formats = [
        json.loads(path.read_text())["format"] for path in sorted((tmp_path / "sweep_finished").rglob("result.json"))
    ]
    assert formats == [1, 1, FORMAT]
    with open(tmp_path / "sweep_finished" / "results.csv", newline="") as file:
        assert [line["curve"] for line in csv.DictReader(file)] == ["1", "4", "6"]


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if "after" in run])
def test_an_interrupted_run_of_format_1_goes_on(name, command, beside_images, monkeypatch):
    """To the same bits by the native engine, which has the instruction set that it had then."""
    expected = RUNS[name]
    if expected["isa"]:
        if cpp.variants()[expected["isa"]] != "ok":
            pytest.skip("the native engine isn't built")
        monkeypatch.setenv("FRACTAL_IFS_ISA", expected["isa"])
    directory = Path(shutil.copytree(FORMAT1 / name, beside_images / name))
    ended = command(*words(expected))
    assert ended.status == 0, ended.status
    after, record, state = expected["after"], read_record(directory), read_checkpoint(directory)
    assert record is not None
    assert state is not None
    assert (record.status, record.fingerprint) == ("finished", after["fingerprint"])
    found, wanted = (np.array(rows, float) for rows in (state["history"], after["history"]))
    assert np.array_equal(found[:, 0], wanted[:, 0])
    if native(expected):
        assert [digest(state, part) for part in STATE] == [after[part] for part in STATE]
        assert np.array_equal(np.delete(found, 1, 1), wanted)
        assert record.best_test_acc == after["best_test_acc"]
    else:
        assert np.delete(found, 1, 1)[:, 1:3] == pytest.approx(wanted[:, 1:3], rel=0.05)
    begun_at = expected["step"] + expected.get("layer", 0) * record.config.steps
    assert f"training from step {begun_at} " in (directory / "train.log").read_text()


@pytest.mark.parametrize("name", sorted(path.name for path in FORMAT2.iterdir() if path.is_dir()))
def test_runs_without_digests_are_read_and_go_on(name, command, tmp_path, monkeypatch):
    """What their checkpoints can be compared with: the archive's checksums, and the sizes that the network needs."""
    if cpp.variants()["base"] != "ok":
        pytest.skip("the native engine isn't built")
    monkeypatch.setenv("FRACTAL_IFS_ISA", "base")
    directory = Path(shutil.copytree(FORMAT2 / name, tmp_path / name))
    finished = name == "native_finished"
    before, state = (directory / "checkpoint.pt").read_bytes(), read_checkpoint(directory)
    assert state is not None
    assert "digest" not in state
    if (directory / "result.json").exists():
        assert len(load(directory).history) == len(state["history"])
    ended = command(*words(RUNS[name]))
    assert ended.status == 0, ended.status
    after, state = RUNS[name].get("after", RUNS[name]), read_checkpoint(directory)
    assert state is not None
    found, wanted = np.delete(np.array(state["history"], float), 1, 1), np.array(after["history"], float)
    if native(RUNS[name]):
        assert [digest(state, part) for part in STATE] == [after[part] for part in STATE]
        assert np.array_equal(found, wanted)
        assert load(directory).record.best_test_acc == after["best_test_acc"]
    else:
        assert found[:, :3] == pytest.approx(wanted[:, :3], rel=0.05)
    assert ((directory / "checkpoint.pt").read_bytes() == before) == finished
    assert ("digest" in state) != finished


def test_every_kept_run_is_recognised():
    """The fingerprints of the published tables, from configs as they are made today."""
    points, images = compose(), dict[str, RunConfig]()  # those of images by how they differ from the protocol
    fractals = {name: read("fractal", name, {}) for name in ("cantor2d", "pentaflake", "sierpinsky", "vicsek")}
    curves = {str(name): read("curve", name, {}) for name in range(1, 7)}
    kept = 0
    for name in ("results.csv", "looked_into.csv", "figure7.csv"):
        for row in rows.read_runs([REPRODUCTION / name])[0].to_dict("records"):
            asked = {key: int(row[key]) for key in ("depth", "width", "seed", "eval_every", "batch_size")}
            asked |= {"steps": int(row["steps_asked"]), "lr": row["lr"], "loss": row["loss"]}
            if row["data"] == "cifar10":
                if row["differs"] not in images:
                    other = {key: yaml.safe_load(value) for key, value in keys_of_difference(row).items()}
                    images[row["differs"]] = compose(data="cifar10", model="cnn", data__verify=False, **other)
                config = replace(images[row["differs"]], **asked)
            else:
                config = replace(points, **asked)
                assert rows.train_command(row) is not None  # of the paper's protocol: the row holds all of it
                fractal = Fractal.parse(fractals[row["fractal"]] | {"depth": int(row["fractal_depth"])})
                config = replace(config, fractal=fractal, curve=Curve.parse(curves[row["curve"]]))
            assert config.fingerprint == row["fingerprint"], row
            assert setting_of(config) == (row["setting"], row["differs"])
            kept += 1
    assert kept > 1050


# A class of keys gets one more, as its maintainer would add it: what is that to the runs before it?


def with_a_key(group, later):
    """The group as a later version may have it, with a key that all runs before had at ``later``."""
    kind = make_dataclass(
        type(group).__name__,
        [("extra", type(later), key("new", later=later))],
        bases=(type(group),),
        frozen=True,
        kw_only=True,
    )
    return kind, kind.parse(group.plain())


@pytest.mark.parametrize("group", ["data", "model", "trainer", "logger"])
@pytest.mark.parametrize("config", [small(), compose(data="cifar10", model="cnn")], ids=["fractal", "images"])
def test_a_key_that_is_added_to_a_group_loses_no_kept_run(group, config):
    kind, extended = with_a_key(getattr(config, group), 7)
    assert extended.extra == 7  # records of runs before it lack the key, and mean this
    assert replace(config, **{group: extended}).fingerprint == config.fingerprint
    other = replace(config, **{group: kind.parse({**extended.plain(), "extra": 8})})
    assert (other.fingerprint == config.fingerprint) == (group == "logger")  # no logger changes a result


def test_a_key_that_is_added_to_the_run_loses_no_kept_run():
    config = small()
    keys = {field.name: getattr(config, field.name) for field in fields(RunConfig)}

    @dataclass(frozen=True, kw_only=True)
    class Later(RunConfig):
        momentum: float = key("new", least=0, later=0.0)

    assert Later(**keys).fingerprint == config.fingerprint
    assert Later(**keys, momentum=0.9).fingerprint != config.fingerprint
    before: Any = Later.parse(config.plain())
    assert before.momentum == 0.0


@pytest.mark.parametrize("group", ["fractal", "curve"])
def test_a_key_that_is_added_to_a_fractal_or_curve_loses_no_kept_run(group, monkeypatch):
    """Of these the keys themselves are kept: a file may say the new key, as conf/fractal/custom.yaml says null."""
    config = compose(fractal="custom", **{"fractal.ratio": "1/3", "fractal.offsets": [[-0.5, 0], [0.5, 0]]})
    kind = type(getattr(config, group))
    keys = getattr(config, group).keys
    written = {value: replace_keys(kind, config, group, {**keys, "extra": value}) for value in (None, 3)}
    assert len({config.fingerprint, written[None].fingerprint, written[3].fingerprint}) == 3
    monkeypatch.setitem(fractal_keys.LATER, "extra", None)
    again = {value: replace_keys(kind, config, group, {**keys, "extra": value}) for value in (None, 3)}
    assert again[None].fingerprint == config.fingerprint
    assert again[3].fingerprint == written[3].fingerprint


def replace_keys(kind, config, group, keys):
    """The config with these keys of a fractal or curve, unchecked."""
    made = kind(keys)
    vars(made).update({name: value for name, value in vars(getattr(config, group)).items() if name != "keys"})
    return replace(config, **{group: made})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("margin", (0, 0.0, "0")),
        ("brightness", (63, 63.0)),
        ("contrast", ([0, 2], [0.0, 2.0])),
        ("contrast", ([0, 2.0], [0.0, 2])),
    ],
)
def test_a_number_is_the_same_however_it_is_spelled(name, values, tmp_path):
    """Format 1 took it as it was given: 0 and 0.0 were two runs. Both are recognised as what they are: one."""
    config = compose() if name == "margin" else compose(data="cifar10", model="cnn")
    plain = config.plain()
    spelled = [RunConfig.parse({**plain, "data": {**plain["data"], name: value}}) for value in values]
    assert len({each.fingerprint for each in spelled}) == 1
    identity = spelled[0].identity()
    for value in values[:2]:
        text = json.dumps(identity | {"data": identity["data"] | {name: value}}, sort_keys=True)
        old = hashlib.sha256(text.encode()).hexdigest()[:16]  # as format 1 had it
        assert old in spelled[0].fingerprints
        check_same(Job(spelled[0], tmp_path), old, None)
    with pytest.raises(ConfigError, match="holds a run of another config"):
        check_same(Job(spelled[0], tmp_path), "0" * 16, None)


def test_a_kept_table_has_one_row_for_a_run_however_it_spelled_it(command, tmp_path):
    """Format 1's fingerprint of data.margin=0 is in the table: the run is neither trained nor added again."""
    keys = ["-m", "curve=1", "width=4", "depth=1", "steps=20", "eval_every=10", "data.train_size=200", "logger=none"]
    keys += ["data.margin=0", "sweep=s", "kept=kept.csv"]
    assert command(*keys).status == 0
    [directory] = (path.parent for path in tmp_path.rglob("result.json"))
    record = read_record(directory)
    assert record is not None
    old = next(name for name in record.config.fingerprints if name != record.fingerprint)
    table = tmp_path / "kept.csv"
    table.write_text(table.read_text().replace(record.fingerprint, old))
    assert finished_runs.add(table, [directory]) == (0, [])
    shutil.rmtree(tmp_path / "multirun")
    assert "1 of 1 jobs are finished already" in command(*keys).out
    assert not list(tmp_path.rglob("result.json"))


def test_what_a_config_gives_away_is_a_copy():
    compose(fractal="vicsek").plain()["fractal"]["offsets"].append([9, 9])
    assert len(compose(fractal="vicsek").plain()["fractal"]["offsets"]) == 5


def odd(record):
    """Records that this version must leave alone, or may read all the same."""
    yield {**record, "format": 99}, "format 99; this version reads up to"
    yield {**record, "config": {**record["config"], "momentum": 0.9}}, "momentum=0.9: there is no such key"
    wrong = {**record["config"]["model"], "init": "zeros"}
    yield {**record, "config": {**record["config"], "model": wrong}}, "model.init=zeros: must be one of"


def test_a_record_that_is_not_understood_is_left_alone(command, tmp_path, caplog):
    """Training refuses to take its place; the report, the status and the table go on without it."""
    keys = ["width=4", "depth=1", "steps=20", "eval_every=10", "data.train_size=200", "logger=none", "sweep=s"]
    assert command("-m", "curve=1,4", *keys).status == 0
    path = next(tmp_path.rglob("*curve=4*/result.json"))
    for record, reason in odd(undigested(path)):
        path.write_text(json.dumps(record))
        with pytest.raises(NotUnderstood, match=reason):
            read_record(path.parent)
        assert reason in command("-m", "curve=1,4", *keys).status
        assert path.read_text() == json.dumps(record)
        caplog.clear()
        runs, notes = rows.read_runs([tmp_path / "multirun"])
        assert list(runs.curve) == ["1"]
        assert [reason in note for note in notes] == [True]
        assert "1 finished" in status.show(tmp_path / "multirun")
        assert finished_runs.add(tmp_path / "kept.csv", [path.parent]) == (0, [])
        assert reason in caplog.text
        with pytest.raises(ConfigError, match=reason):
            rows.read_runs([path.parent])


def test_keys_that_change_no_result_need_not_be_valid_in_a_record(command, tmp_path):
    keys = ["width=4", "depth=1", "steps=20", "eval_every=10", "data.train_size=200", "logger=none"]
    assert command(*keys).status == 0
    path = next(tmp_path.rglob("result.json"))
    record = undigested(path)
    record["config"] |= {"logger": {"name": "wandb", "timeout": 0, "mine": 1}, "workers": -1, "engine": "gone"}
    path.write_text(json.dumps(record))
    found = read_record(path.parent)
    assert found is not None
    assert found.fingerprint == record["fingerprint"]
    assert command(*keys).status == 0
    assert json.loads(path.read_text()) == record  # not trained again


def test_a_config_of_the_first_records_may_lack_what_they_lacked():
    plain = compose().plain()
    fewer = {**plain, "trainer": {"strategy": "auto"}, "training": None}
    fewer = {name: value for name, value in fewer.items() if value is not None and name not in placement()}
    assert RunConfig.parse(fewer).fingerprint == compose().fingerprint
    images = {k: v for k, v in compose(data="cifar10", model="cnn").plain()["data"].items() if k != "url"}
    assert ImageData.parse(images).url is None


@pytest.mark.parametrize("depth", [5.0, "5", None, 0, True])
def test_the_depth_of_a_fractal_is_written_as_a_whole_number(depth):
    """Else one run would have several fingerprints."""
    plain = compose().plain()
    with pytest.raises(ConfigError, match=f"(?i)fractal.depth={depth!r}: must be a whole number >= 1"):
        RunConfig.parse({**plain, "fractal": {**plain["fractal"], "depth": depth}})


def test_only_keys_that_can_change_a_result_are_told_as_a_difference(tmp_path):
    job = Job(compose(lr=0.5, trainer__accelerator="auto", logger="csv", workers=2), tmp_path)
    with pytest.raises(ConfigError) as refused:
        check_same(job, "0" * 16, compose(lr=0.25))
    assert "(lr=0.25 there, 0.5 asked)" in str(refused.value)


def test_a_tree_that_git_cannot_tell_of_is_unknown(monkeypatch):
    """Not unmodified."""
    refused = subprocess.CompletedProcess([], 128, "", "fatal: dubious ownership")
    monkeypatch.setattr(versions.subprocess, "run", lambda *_, **__: refused)
    assert versions._git() == (None, None)


def test_a_default_that_changes_does_lose_runs():
    """Any other value of a key that can change a result is another run, whatever conf/ says the default is."""
    config = small()
    others = {"model.init": "theory", "data.balanced": True, "data.margin": 1e-3, "trainer.precision": "64-true"}
    others |= {"depth": 2, "width": 9, "lr": 2e-3, "loss": "squared", "optimizer": "sgd", "training": "layerwise"}
    others |= {"batch_size": 50, "steps": 101, "eval_every": 51, "seed": 1, "data.train_size": 1501}
    prints = {config.fingerprint, *(changed(config, name, value).fingerprint for name, value in others.items())}
    assert len(prints) == len(others) + 1


DOUBLE = {  # fingerprints of trainer.precision=64-true before there was trainer.draw
    "02bd62cb5cb474b0": {},
    "40eb1fa5803dbc40": {"training": "layerwise"},
    "cfb86a3dc7a0c791": {"data": "cifar10", "model": "cnn"},
    "31e48fb158c5aad2": {"model": "resmlp"},
    "f94d6a76f462d322": {"model__norm": "layer"},
    "5bd5501bbc35ee9d": {"model__activation": "tanh"},
}
ALIKE = {  # whose weights trainer.draw doesn't change
    "ef103954fa447610": {"trainer__precision": "32-true"},
    "4c63bcca850b98ba": {"trainer__precision": "bf16-mixed"},
    "4ae446dd6d7f587b": {"model": "theorem1", "fractal": "cantor", "width": 200, "depth": 10},
}


def test_an_old_run_in_double_precision_is_not_taken_for_one_of_other_weights():
    """Its config has no trainer.draw, which means what all runs did then; the default is another run."""
    for fingerprint, keys in DOUBLE.items():
        new = compose(**{"trainer__precision": "64-true", **keys})
        old = new.plain()
        del old["trainer"]["draw"]
        assert RunConfig.parse(old).fingerprint == fingerprint
        assert fingerprint not in new.fingerprints
        assert changed(new, "trainer.draw", "precision").fingerprint == fingerprint
    for fingerprint, keys in ALIKE.items():
        for draw in ("float32", "precision"):
            assert (
                compose(**{"trainer__precision": "64-true", "trainer__draw": draw, **keys}).fingerprint == fingerprint
            )


def test_an_old_run_on_overlapping_cells_is_not_taken_for_one_of_other_points():
    three = {"fractal": "sierpinsky", "fractal.ratio": 0.6, "fractal.offsets": [[0, 0.4], [-0.4, -0.4], [0.4, -0.4]]}
    new = compose(**three)
    old = new.plain()
    del old["data"]["overlaps"]
    assert RunConfig.parse(old).fingerprint == "daecc94d6aef76dd"  # before there was data.overlaps
    assert "daecc94d6aef76dd" not in new.fingerprints
    assert "overlaps" in new.identity()["data"]
    apart = compose(fractal="sierpinsky")
    assert apart.fingerprint == changed(apart, "data.overlaps", "repeated").fingerprint


def test_the_keys_of_format_1_are_part_of_every_fingerprint():
    """None may become ``later``: then it would drop out at its default, and all runs before would be forgotten."""
    assert set(small().identity()) == {
        *("fractal", "curve", "data", "model", "trainer", "depth", "width", "lr", "loss", "optimizer", "batch_size"),
        *("steps", "eval_every", "seed"),
    }
    assert set(small().identity()["data"]) == {"name", "train_size", "test_size", "margin", "balanced"}
    assert set(small().identity()["model"]) == {"name", "init", "sum_last"}
    assert small().identity()["trainer"] == {"precision": "32-true"}
    images = compose(data="cifar10", model="cnn").identity()
    assert set(images["data"]) == {
        *("name", "verify", "train_size", "test_size", "crop", "augment", "brightness", "contrast")
    }
    assert set(images["model"]) == {"name", "init", "pools", "readout"}
    own = ("measures", "measure_start", "engine", "workers", "sweep", "kept", "continue_from", "overwrite")
    own += ("data.val_size", "data.dir", "data.url")
    own += ("trainer.accelerator", "trainer.strategy", "trainer.cuda_graphs")
    assert [name for name in placement() if not name.startswith("logger.")] == list(own)


def test_a_record_says_what_its_bits_rest_on(command, tmp_path):
    assert command(*("width=4", "depth=1", "steps=4", "eval_every=4", "data.train_size=200", "logger=none")).status == 0
    record = json.loads(next(tmp_path.rglob("result.json")).read_text())
    assert record["format"] == FORMAT
    assert isinstance(record["git_modified"], bool) or not (CONF.resolve().parent / ".git").exists()
    if record["engine"] == "native":
        assert record["native_build"] == cpp.build()
        assert "-O3" in record["native_build"]
        assert record["torch_kernels"] is None
    assert set(KEYS) <= record.keys()
    assert record.keys() == {"format", "digests", *(field.name for field in fields(RunRecord))}
    state = torch.load(next(tmp_path.rglob("checkpoint.pt")), weights_only=True)
    assert state["native_build"] == record["native_build"]

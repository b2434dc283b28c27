"""A damaged file never becomes a result: what is damaged is noticed, said in one line, and mended where that can be."""

import json
import os
import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import files, small, undigested
from damage import Runs, damages

from fractal_ifs import ConfigError, load
from fractal_ifs.config.run import Job
from fractal_ifs.errors import Damaged, Refused
from fractal_ifs.report import __main__ as report
from fractal_ifs.results import rows
from fractal_ifs.runs import checkpoints, records
from fractal_ifs.runs.checkpoints import read_whole
from fractal_ifs.runs.records import RunRecord
from fractal_ifs.runs.versions import ComputedBy
from fractal_ifs.sweeps import driver, status
from fractal_ifs.sweeps.finished import finished_jobs
from fractal_ifs.sweeps.sweep import train_jobs
from fractal_ifs.sweeps.table import frame, show_table


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def lying(runs, tmp_path):
    """``lying("finished")``: a run as it lies there, and the job that goes on with it."""

    def copy(state: str, training: str = "joint") -> tuple[Path, Job]:
        directory = tmp_path / "sweep" / f"{state}-{training}"
        shutil.copytree(runs.root / training / state, directory)
        return directory, Job(runs.config(training), directory)

    return copy


@pytest.fixture(autouse=True)
def nothing_failed():
    """What fails here isn't shown at the end of another test's command."""
    yield
    driver.failed.clear()


def test_damages_of_every_kind_end_in_equal_bits_or_one_line(runs):
    found = Counter()
    for damage in damages(60, seed=0):
        word, more = runs.judge(damage)
        assert word in ("equal", "refused"), f"{word}: {damage}: {more}"
        found[word] += 1
    assert min(found.values()) >= 8


def entry(**changes):
    """Change a checkpoint's entries; its old digest goes, as none was there before there were digests."""

    def change(path: Path) -> None:
        state = {**torch.load(path, weights_only=True), **changes}
        gone = ["digest", *(name for name, value in changes.items() if value is None)]
        torch.save({name: value for name, value in state.items() if name not in gone}, path)

    return change


def packed(path: Path) -> None:
    with zipfile.ZipFile(path) as old:
        content = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in content.items():
            new.writestr(name, data)
        new.writestr("archive/data/bomb", bytes(10**8))


def sparse(path: Path) -> None:
    os.truncate(path, 10**12)


def as_if_whole(path: Path) -> None:
    """Other weights, with the digest of the old ones."""
    state = torch.load(path, weights_only=True)
    state["params"][3] += 1e-7
    torch.save(state, path)


P = 37  # parameters of the network
WRONG = {
    "it has no params": entry(params=None),
    "its params has 1 numbers of torch.float32, the network needs 37": entry(params=torch.zeros(1)),
    "its exp_avg has 36 numbers": entry(exp_avg=torch.zeros(P - 1)),
    "the network needs 37 of torch.float32": entry(params=torch.zeros(P, dtype=torch.float64)),
    "its params can't be right": entry(params=torch.zeros(1).expand(P)),
    "its params has numbers that aren't finite": entry(params=torch.full((P,), float("nan"))),
    "its exp_avg_sq has numbers below 0": entry(exp_avg_sq=torch.full((P,), -1.0)),
    "its steps can't be right": entry(step=70),
    "its step can't be right": entry(step=-1),
    "its best can't be right": entry(best=(1.5, 20)),
    "its history can't be right": entry(history=[(20, 0.1, 0.5, 0.5, 0.5), (20, 0.1, 0.5, 0.5, 0.5)]),
    "its wandb_id can't be right": entry(wandb_id="a\nb"),
    "of layer-wise training": entry(layer=0, layer_params=torch.zeros(P)),
    "of another network": entry(d=3),
    "its content has another digest": as_if_whole,
    "a packed archive, which no checkpoint is": packed,
    "1000000000000 bytes, at most": sparse,
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_checkpoint_that_no_run_wrote_is_refused_and_left_alone(lying, reason):
    directory, job = lying("interrupted")
    (directory / "checkpoint.previous.pt").unlink()
    path = directory / "checkpoint.pt"
    WRONG[reason](path)
    size, before = path.stat().st_size, files(directory, "*.json")
    [refused] = train_jobs([job])
    assert isinstance(refused, Damaged)
    assert reason in str(refused)
    assert "remove checkpoint.pt (or give overwrite=true) to train it anew" in str(refused)
    assert "\n" not in str(refused)
    assert (path.stat().st_size, files(directory, "*.json")) == (size, before)
    assert not (directory / ".lock").exists()
    with pytest.raises(ConfigError, match="no checkpoint holds the network of its record"):
        load(directory)
    [again] = train_jobs([job._replace(config=replace(job.config, overwrite=True))])
    assert isinstance(again, RunRecord)


def test_a_checkpoint_with_another_fingerprint_falls_back(lying, caplog):
    directory, job = lying("interrupted")
    straight = load(lying("finished")[0])
    entry(fingerprint="0" * 16)(directory / "checkpoint.pt")
    [record] = train_jobs([job])
    assert isinstance(record, RunRecord)
    said = f"{directory / 'checkpoint.pt'} can't be used: it is of another config: set aside as checkpoint.pt.damaged"
    assert said in caplog.text
    assert said in (directory / "train.log").read_text()
    assert all(map(torch.equal, load(directory).model.parameters(), straight.model.parameters()))


def test_a_checkpoint_of_a_later_format_is_told_with_its_path_once(lying):
    directory, job = lying("finished")
    for name in checkpoints.CHECKPOINTS:
        path = directory / name
        torch.save({**torch.load(path, weights_only=True), "format": 99}, path)
    with pytest.raises(ConfigError, match=r"\(checkpoint.pt: format 99; this version reads up to 3") as error:
        load(directory)
    assert str(error.value).count(str(directory)) == 1
    (directory / "result.json").unlink()
    [refused] = train_jobs([job])
    assert str(refused) == f"{directory / 'checkpoint.pt'}: format 99; this version reads up to 3, update it"


def test_a_checkpoint_of_a_later_format_is_left_alone(lying):
    directory, job = lying("interrupted")
    entry(format=99)(directory / "checkpoint.pt")
    before = files(directory)
    [refused] = train_jobs([job])
    assert isinstance(refused, Refused)
    assert "checkpoint.pt: format 99; this version reads up to 3, update it" in str(refused)
    assert files(directory) == before


def test_a_checkpoint_of_another_config_is_left_alone(lying):
    directory, job = lying("interrupted")
    (directory / "result.json").unlink()
    before = files(directory)
    [refused] = train_jobs([job._replace(config=replace(job.config, lr=0.25, width=5))])
    assert "holds a run of another config" in str(refused)
    assert files(directory) == before


@pytest.mark.parametrize("training", ["joint", "layerwise"])
def test_a_damaged_record_of_a_finished_run_is_written_anew_with_the_same_content(lying, training, caplog):
    directory, job = lying("finished", training)
    path = directory / "result.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"best_test_acc": 0.', b'"best_test_acc": 0.1'))
    assert status.status(directory.parent).states["damaged"] == 1
    [record] = train_jobs([job])
    assert path.read_bytes() == whole
    assert record == load(directory).record
    said = f"{path} can't be read: its content has another digest (if you changed it, remove its digests)"
    assert f"{said}: set aside as result.json.damaged" in (directory / "train.log").read_text()
    assert said in caplog.text


def test_a_damaged_record_without_a_checkpoint_is_neither_lost_nor_a_result(lying):
    directory, job = lying("finished")
    for name in checkpoints.CHECKPOINTS:
        (directory / name).unlink()
    (directory / "result.json").write_bytes((directory / "result.json").read_bytes()[:-30])
    before = files(directory)
    [refused] = train_jobs([job])
    assert isinstance(refused, Damaged)
    assert "there is no checkpoint to write it anew from" in str(refused)
    assert files(directory) == before
    assert status.status(directory.parent).states["damaged"] == 1


RECORDS = {
    "best_test_acc=nan": {"best_test_acc": float("nan")},
    "best_test_acc=0.6x": {"best_test_acc": "0.6x"},
    "best_test_acc=1.5": {"best_test_acc": 1.5},
    "final_test_acc=-0.1": {"final_test_acc": -0.1},
    "has no accuracy": {"best_test_acc": None},
    "seconds=inf": {"seconds": float("inf")},
    "steps=100.5": {"steps": 100.5},
    "steps=true": {"steps": True},
    "status=done: must be one of": {"status": "done"},
    "measured={'a': 10000": {"measured": {"a": 10**400}},
    "its config can't be right": {"config": None},
    "lr=0.5, but its config says 0.001": {"lr": 0.5, "fingerprint": "0" * 16},
    "torch=2.0 [now] all is well": {"torch": "2.0\n[now] all is well"},
    "its digests can't be right": {"digests": "x"},
    "can't be read: its digests can't be right": {"digests": {"record": 3}},
    "another digest": {"digests": {"record": "0" * 64}},
    "not a record": {"format": None},
}


@pytest.mark.parametrize("reason", RECORDS)
def test_a_record_that_no_run_wrote_is_said_and_left_out(lying, reason, tmp_path, caplog, capsys):
    directory, _ = lying("finished", "layerwise")
    other, _ = lying("finished")
    path = other / "result.json"
    path.write_text(json.dumps(undigested(path) | RECORDS[reason]))
    with pytest.raises(Damaged, match="can't be read") as error:
        records.read_stored(other)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert records.read_record(other) is None
    counts = status.status(directory.parent).states
    assert (counts["finished"], counts["damaged"]) == (1, 1)
    caplog.clear()
    show_table(directory.parent)
    assert reason in caplog.text
    assert list(frame(directory.parent).training) == ["layerwise"]
    _, notes = rows.read_runs([directory.parent])
    assert reason in notes[0]
    assert report.collect([str(directory.parent), "--into", str(tmp_path / "kept.csv")]).startswith("1 run added")
    with pytest.raises(ConfigError, match="can't be read"):
        load(other)


def test_any_value_in_place_of_any_other_is_a_record_or_a_line(lying):
    directory, _ = lying("finished")
    path, deep = directory / "result.json", [None]
    for _ in range(300):
        deep = [deep]
    whole = undigested(path)
    groups = [name for name, value in whole["config"].items() if isinstance(value, dict)]
    places = [(name,) for name in whole] + [("config", name) for name in whole["config"]]
    places += [("config", group, name) for group in groups for name in whole["config"][group]]
    refused = 0
    for *outer, last in places:
        for value in (None, [], {"a": None}, "x", deep, float("nan"), float("inf"), -1, 10**30, True):
            record = json.loads(json.dumps(whole))
            inner = record
            for name in outer:
                inner = inner[name]
            inner[last] = value
            path.write_text(json.dumps(record))
            (directory / "begun.json").write_text(json.dumps(record))
            records.read_begun(directory)
            try:
                records.read_stored(directory)
            except Refused as error:
                refused += 1
                assert "\n" not in str(error)  # noqa: PT017
    assert refused > 5 * len(places)


@pytest.mark.parametrize("nested", ["[", '{"a":'])
def test_a_record_nested_deeply_is_damaged(tmp_path, nested):
    (tmp_path / "result.json").write_text(nested * 100_000)
    with pytest.raises(Damaged):
        records.read_stored(tmp_path)


def test_a_record_of_a_later_version_has_a_state_of_its_own(lying):
    directory, _ = lying("finished")
    path = directory / "result.json"
    path.write_text(json.dumps({**undigested(path), "format": 99}))
    assert status.status(directory.parent).states["not understood"] == 1
    assert "1 run: 1 not understood" in status.show(directory.parent)


def test_one_odd_record_takes_nothing_with_it(lying, caplog, capsys):
    directory, _ = lying("finished")
    odd, _ = lying("interrupted")
    (odd / "result.json").write_text('{"format": 99}')
    show_table(directory.parent)
    assert "format 99; this version reads up to 2" in caplog.text
    assert len(frame(directory.parent)) == 1
    assert status.status(directory.parent).states["finished"] == 1
    runs, notes = rows.read_runs([directory.parent])
    assert list(runs.status) == ["finished"]
    assert "format 99" in notes[0]


def test_load_never_gives_an_older_network(lying):
    directory, _ = lying("finished")
    newest, previous = (directory / name for name in checkpoints.CHECKPOINTS)
    network = load(directory).model
    whole = newest.read_bytes()
    newest.unlink()
    with pytest.raises(ConfigError, match=r"checkpoint.previous.pt: is of step \d+, the record of step 100"):
        load(directory)
    previous.write_bytes(whole)
    assert all(map(torch.equal, load(directory).model.parameters(), network.parameters()))
    state = read_whole(previous)
    state["params"][0] += 1
    state.pop("digest", None)
    checkpoints.write_checkpoint(directory, state)
    previous.unlink()
    with pytest.raises(ConfigError, match=r"checkpoint\.pt: holds other weights than those that the record names"):
        load(directory)
    path = directory / "result.json"
    path.write_text(
        json.dumps(undigested(path) | {"width": 10**9, "config": undigested(path)["config"] | {"width": 10**9}})
    )
    with pytest.raises(ConfigError, match=r"width=1000000000.*of memory"):
        load(directory)


@pytest.mark.parametrize("training", ["joint", "layerwise"])
def test_a_torn_history_of_a_finished_run_is_written_anew(lying, training, caplog):
    caplog.set_level("INFO")
    directory, job = lying("finished", training)
    whole = files(directory)
    path = directory / "history.csv"
    path.write_bytes(path.read_bytes()[:-30])
    [record] = finished_jobs([job]).values()  # so whoever trains the others: also Slurm
    assert isinstance(record, RunRecord)
    after = files(directory)
    assert after["history.csv"][1] == whole["history.csv"][1]
    assert "history.csv can't be read: its content has another digest: written anew" in caplog.text
    assert "written anew from the checkpoint" in (directory / "train.log").read_text()
    assert {name for name in whole if after[name] != whole[name]} == {"history.csv", "train.log"}
    for name in checkpoints.CHECKPOINTS:
        (directory / name).write_bytes(b"")
    path.write_bytes(b"\xff" * 40)
    torn = files(directory)
    caplog.clear()
    [again] = train_jobs([job])  # its record is whole
    assert again == record
    assert "and can't be written anew" in caplog.text
    assert "1 of 1 jobs are finished already" in caplog.text
    assert files(directory) == torn
    assert len(load_rows(directory)) == 1


def test_a_history_of_another_run_is_not_taken(lying, caplog):
    """A checkpoint of the same config, with other numbers than the record's."""
    directory, job = lying("finished")
    (directory / "history.csv").unlink()
    for name in checkpoints.CHECKPOINTS:
        state = read_whole(directory / name)
        step, seconds, *losses, accuracy = state["history"][-1]
        state["history"][-1] = (step, seconds, *losses, accuracy / 2)
        torch.save({**state, "digest": checkpoints.digest(state)}, directory / name)
    assert len(finished_jobs([job])) == 1
    assert "history.csv is missing, and can't be written anew: checkpoint.pt: its content has another" in caplog.text
    assert not (directory / "history.csv").exists()


def load_rows(directory: Path) -> list:
    return rows.read_runs([directory.parent])[0].to_dict("records")


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"step\n1\n", b"step,seconds,train_loss,test_loss,test_acc\n2,"]
)
def test_a_history_that_is_none_costs_one_line(lying, content):
    directory, _ = lying("killed")
    (directory / "history.csv").write_bytes(content)
    assert status.status(directory.parent).states["interrupted"] == 1
    with pytest.raises(ConfigError, match=r"history.csv can't be read|there is no run|no run has") as error:
        rows.read_runs([directory.parent])
    assert "\n" not in str(error.value)


def test_a_config_of_few_lines_that_stand_for_gigabytes_is_none(tmp_path):
    (tmp_path / ".hydra").mkdir()
    levels = [f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]" for before, name in pairwise("abcdefghijklm")]
    text = "\n".join(["a: &a [x]", *levels, "fractal: *m", ""])
    (tmp_path / ".hydra" / "config.yaml").write_text(text)
    assert records.read_composed(tmp_path) is None


def test_a_begun_file_of_another_config_is_none(lying):
    directory, job = lying("killed")
    path = directory / "begun.json"
    begun = json.loads(path.read_text())
    assert records.read_begun(directory) is not None
    path.write_text(json.dumps(begun | {"config": begun["config"] | {"lr": 0.5}}))
    assert records.read_begun(directory) is None
    [record] = train_jobs([job])
    assert isinstance(record, RunRecord)
    path.write_text(json.dumps(begun | {"wandb_id": "../a\n"}))
    found = records.read_begun(directory)
    assert found is not None
    assert found.wandb_id is None


def test_a_run_without_an_evaluation_shows_no_accuracy(tmp_path, capsys):
    from fractal_ifs.runs.begin import begin

    run = begin(Job(small(), tmp_path / "run"), "cpu", ComputedBy(engine="native"))
    run.status = records.Status.INTERRUPTED
    run.save()
    assert run.lock is not None
    run.lock.release()
    record = records.read_record(tmp_path / "run")
    assert record is not None
    assert (record.best_test_acc, record.best_step, record.final_test_acc, record.steps) == (None, None, None, 0)
    show_table(tmp_path)
    assert "0.0000" not in capsys.readouterr().out
    path = tmp_path / "run" / "result.json"
    path.write_text(json.dumps(undigested(path) | {"best_test_acc": 0.0, "best_step": 0}))  # as it was written before
    assert records.read_record(tmp_path / "run") == record


def test_what_killed_processes_left_is_removed_when_the_run_goes_on(lying):
    directory, job = lying("interrupted")
    left = [directory / f".{name}.{'0123456789abcdef' * 2}" for name in ("result.json", "checkpoint.pt", "history.csv")]
    mine = [
        directory / name
        for name in (".notes.txt.0123456789abcdef0123456789abcdef", ".result.json.swp", "checkpoint.pt.bak")
    ]
    for path in (*left, *mine):
        path.write_text("half")
    train_jobs([job])
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in mine)


@pytest.mark.parametrize("name", [".lock", "train.log", ".hydra/config.yaml"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_written_through_a_link(lying, name, overwrite, tmp_path):
    directory, job = lying("interrupted")
    target = tmp_path / "mine"
    target.write_text("of somebody else")
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to(target)
    with pytest.raises(Refused, match=r"a link, which would be written through; remove it"):
        train_jobs([job._replace(config=replace(job.config, overwrite=overwrite))])
    from fractal_ifs.training.train import train

    train([job], threads=1)  # nobody has looked before
    records.note(directory, "hello")
    assert target.read_text() == "of somebody else"


def test_a_hard_link_is_a_link(tmp_path):
    (tmp_path / "mine").write_text("of somebody else")
    os.link(tmp_path / "mine", tmp_path / "train.log")
    os.link(tmp_path / "mine", tmp_path / ".lock")
    records.note(tmp_path, "hello")
    from fractal_ifs.runs import locks

    with pytest.raises(Refused, match=r"\.lock: a link, or not a file; remove it"):
        locks.of_directory(tmp_path, "run")
    assert (tmp_path / "mine").read_text() == "of somebody else"


def test_no_text_passes_for_a_line_of_the_log(lying, tmp_path):
    records.note(
        tmp_path, "failed: a\n[2025-01-01 00:00:00] finished\x1b[2K", "Traceback\n[2025-01-01 00:00:00] finished"
    )
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert len(lines) == 3
    assert not any(line.startswith("[2025-01-01 00:00:00]") for line in lines)
    assert "\x1b" not in "".join(lines)
    directory, job = lying("interrupted")
    path = directory / "result.json"
    record = undigested(path)
    record["config"]["data"]["margin"] = 0.001
    record["config"]["sweep"] = "a\n[2025-01-01 00:00:00] finished"
    record["fingerprint"] = "0" * 16
    path.write_text(json.dumps(record))
    with pytest.raises(Refused) as error:
        train_jobs([job])
    assert "\n" not in str(error.value)

"""What a run leaves on disk, read back, torn, or of another version."""

import hashlib
import json
import resource
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import files, read_checkpoint, small, undigested

import fractal_ifs
from fractal_ifs import ConfigError
from fractal_ifs.config.fractal import Curve
from fractal_ifs.config.run import Job
from fractal_ifs.errors import Damaged
from fractal_ifs.runs import checkpoints, records
from fractal_ifs.runs.begin import begin
from fractal_ifs.runs.records import RunRecord
from fractal_ifs.runs.versions import ComputedBy
from fractal_ifs.sweeps.sweep import train_jobs


@pytest.fixture
def trained(tmp_path):
    directory = tmp_path / "run"
    [record] = train_jobs([Job(small(), directory)])
    assert isinstance(record, RunRecord)
    return directory, record


def test_a_run_behind_a_link_is_found_once(trained, tmp_path):
    """As one that was moved to another disk; a link that leads back, or to what is there besides, adds nothing."""
    directory, _ = trained
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    shutil.copytree(directory, tmp_path / "elsewhere" / "run")
    (sweep / "moved").symlink_to(tmp_path / "elsewhere" / "run")
    shutil.move(directory, sweep / "own")
    (sweep / "own" / "back").symlink_to(sweep)
    (sweep / "own" / "up").symlink_to(tmp_path)
    (sweep / ".store").mkdir()
    shutil.copytree(directory.with_name("elsewhere") / "run", sweep / ".store" / "kept")
    (sweep / "shown").symlink_to(".store/kept")  # no walk would find it there
    (sweep / "twice").symlink_to("own")
    (tmp_path / "elsewhere" / "run" / "round").symlink_to("..")
    assert [path.name for path, _ in records.walk(sweep)] == ["moved", "own", "shown"]
    shutil.copytree(directory.with_name("elsewhere") / "run", tmp_path / "elsewhere" / "other", symlinks=True)
    (sweep / "whole").symlink_to(tmp_path / "elsewhere")  # with the run that was met by another link before
    assert [path.name for path, _ in records.walk(sweep)] == ["moved", "own", "shown", "other"]


def timeless(record):
    return {key: value for key, value in record.items() if key not in ("seconds", "format")}


def test_what_a_run_leaves(trained):
    directory, record = trained
    written = json.loads((directory / "result.json").read_text())
    digests = written.pop("digests")
    assert written == record.plain() == {"format": 2, **record}
    assert digests["history"] == hashlib.sha256((directory / "history.csv").read_bytes()).hexdigest()
    weights = torch.load(directory / "checkpoint.pt", weights_only=True)["params"]
    assert digests["weights"] == hashlib.sha256(weights.numpy().tobytes()).hexdigest()
    for key in ("status", "error", "seconds", "engine", "isa", "precision", "torch", "fractal_ifs", "git_commit"):
        assert key in written
    expected = {"fractal": "cantor2d", "fractal_depth": 5, "curve": "1", "width": 8, "depth": 3, "lr": 1e-3, "seed": 0}
    expected |= {
        "batch_size": 100,
        "loss": "hinge",
        "optimizer": "adam",
        "init": "paper",
        "steps": 100,
        "data": "fractal",
    }
    assert expected.items() <= written.items()
    assert written["params"] == 2 * 8 + 8 + 2 * (64 + 8) + 9
    history = (directory / "history.csv").read_text().splitlines()
    assert history[0] == "step,seconds,train_loss,test_loss,test_acc,train_acc,train_loss_now"
    assert [line.split(",")[0] for line in history[1:]] == ["50", "100"]
    assert not list(directory.glob(".*"))  # no temporary file
    assert "finished at step 100" in (directory / "train.log").read_text()


def test_load_gives_back_the_trained_network(trained, tmp_path):
    directory, record = trained
    found = fractal_ifs.load(directory)
    keys: Any = {
        "width": 8,
        "depth": 3,
        "steps": 100,
        "eval_every": 50,
        "lr": 0.001,
        "logger": "none",
        "sweep": "tests",
    }
    again, model = fractal_ifs.run(
        **keys,
        data__train_size=1500,
        data__test_size=300,
    )
    assert timeless(again) == timeless(record) == timeless(found.record)
    x = torch.linspace(-1, 1, 20).reshape(10, 2)
    torch.testing.assert_close(found.model(x), model(x), rtol=0, atol=0)
    assert found.config.fractal.name == "cantor2d"
    assert found.history["test_acc"].max() == record["best_test_acc"]
    with pytest.raises(ConfigError, match="there is no such directory"):
        fractal_ifs.load(tmp_path / "nowhere")
    sweep = tmp_path / "sweep"
    for name in ("curve=1", "curve=2", "curve=3", "curve=4", "curve=5"):
        shutil.copytree(directory, sweep / name)
    with pytest.raises(ConfigError, match=r"directory of a sweep: .* curve=1, curve=2, curve=3 and 2 more$"):
        fractal_ifs.load(sweep)


def test_a_finished_run_is_not_touched(trained):
    directory, record = trained
    before = files(directory)
    assert train_jobs([Job(small(), directory)]) == [record]
    assert files(directory) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b'"text"', b"{}", b'{"format": 1}', b"\xff\xfe"], ids=repr)
def test_a_torn_result_is_said_and_computed_again(trained, content, caplog):
    directory, record = trained
    (directory / "result.json").write_bytes(content)
    assert records.read_record(directory) is None
    [again] = train_jobs([Job(small(), directory)])
    assert timeless(again) == timeless(record)
    assert caplog.text.count(f"{directory / 'result.json'} can't be read") == 1


def test_a_later_format_is_refused(trained):
    directory, record = trained
    (directory / "result.json").write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(ConfigError, match="format 99; this version reads up to 2"):
        train_jobs([Job(small(), directory)])


def test_another_config_is_refused_with_the_difference(trained):
    directory, _ = trained
    before = files(directory)
    with pytest.raises(ConfigError) as refused:
        train_jobs([Job(small(lr=0.5, curve=4, engine="torch"), directory)])
    text = str(refused.value)
    assert "lr=0.001 there, 0.5 asked" in text
    assert "curve.name=1 there, 4 asked" in text
    assert "engine" not in text  # can't be the reason
    assert "overwrite=true" in text
    assert "\n" not in text
    assert files(directory) == before
    [record] = train_jobs([Job(replace(small(lr=0.5), overwrite=True), directory)])
    assert isinstance(record, RunRecord)
    assert record.lr == 0.5


def interrupted(directory, rounds):
    from fractal_ifs.training.train import train

    def stop(training, left=[rounds]):  # noqa: B006
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([Job(small(eval_every=20), directory)], threads=1, report=stop)


@pytest.mark.parametrize("torn", ["newest", "both"])
def test_a_torn_checkpoint_falls_back_or_is_refused(tmp_path, torn, caplog):
    interrupted(tmp_path, 2)
    interrupted(tmp_path, 1)
    newest, previous = (tmp_path / name for name in checkpoints.CHECKPOINTS)
    assert torch.load(newest, weights_only=True)["step"] == 60
    assert torch.load(previous, weights_only=True)["step"] == 40
    for path in (newest, previous)[: 1 if torn == "newest" else 2]:
        path.write_bytes(path.read_bytes()[:100])
    state = read_checkpoint(tmp_path)
    assert (state and state["step"]) == (40 if torn == "newest" else None)
    before = files(tmp_path)
    job = Job(small(eval_every=20), tmp_path)
    [record] = train_jobs([job])
    if torn == "both":
        assert isinstance(record, ConfigError)
        reason = "can't be used: File is not a zip file"
        assert str(record).startswith(f"{newest} {reason}; {previous} {reason}. No checkpoint is left to go on from.")
        assert "remove checkpoint.pt and checkpoint.previous.pt (or give overwrite=true)" in str(record)
        assert "\n" not in str(record)
        assert files(tmp_path) == before
        (tmp_path / "result.json").unlink()
        for path in (newest, previous):
            path.unlink()
        [record] = train_jobs([job])
    else:
        said = f"{newest} can't be used: File is not a zip file: set aside as checkpoint.pt.damaged"
        assert said in caplog.text
        assert said in (tmp_path / "train.log").read_text()
        assert "training from step 40" in (tmp_path / "train.log").read_text()
    [straight] = train_jobs([Job(small(eval_every=20), None)])
    assert timeless(record) == timeless(straight)


def test_a_checkpoint_runs_no_code(tmp_path):
    import os

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"step": Evil()}, tmp_path / "checkpoint.pt")
    assert read_checkpoint(tmp_path) is None
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_takes_no_more_memory_than_its_file_has_bytes(trained):
    """``torch.load`` makes a bytearray of any size from a few bytes."""

    class Large:
        def __reduce__(self):
            return bytearray, (200 << 20,)

    path = trained[0] / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "more": Large()}, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Damaged, match=r"it holds a .* bytearray, which no checkpoint does"):
        checkpoints.read_whole(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (100 << 10)


def test_a_run_killed_between_its_last_checkpoint_and_its_result_is_not_trained_again(trained, tmp_path):
    directory, record = trained
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    (copy / "result.json").unlink()
    weights = (copy / "checkpoint.pt").read_bytes()
    [again] = train_jobs([Job(record.config, copy)])
    assert isinstance(again, RunRecord)
    assert (again.best_test_acc, again.steps, again.status) == (record.best_test_acc, 100, "finished")
    assert (copy / "checkpoint.pt").read_bytes() == weights


def test_a_record_that_is_written_anew_names_the_kernels_that_computed_it(tmp_path):
    job = Job(small(engine="torch"), tmp_path)
    train_jobs([job])
    (tmp_path / "result.json").unlink()
    state = checkpoints.read_whole(tmp_path / "checkpoint.pt")
    state["torch_kernels"] = "BLAS of another machine"
    checkpoints.write_checkpoint(tmp_path, state)
    [again] = train_jobs([job])
    assert isinstance(again, RunRecord)
    assert again.torch_kernels == "BLAS of another machine"


def test_a_run_takes_no_wandb_run_of_another_config(tmp_path):
    records.write_begun(tmp_path, records.Begun(small(lr=0.5), "abc"))
    for config, expected in ((small(), None), (small(lr=0.5), "abc")):
        run = begin(Job(config, tmp_path), "cpu", ComputedBy(engine="torch"))
        run.unlock()
        assert run.wandb_id == expected


def test_a_record_reads_as_the_mapping_that_it_was(trained):
    directory, record = trained
    written = undigested(directory / "result.json")
    read = fractal_ifs.load(directory).record
    assert read == record
    assert {**read} == dict(read) == read | {} == {} | read == {k: v for k, v in written.items() if k != "format"}
    assert (read | {"status": "mine"})["status"] == "mine"
    assert read.get("nothing") is None
    with pytest.raises(KeyError):
        read["nothing"]
    assert json.loads(json.dumps(dict(read))) == dict(read)


def test_a_curve_without_a_name_is_called_what_it_is(tmp_path):
    config = replace(small(), curve=Curve.parse({"degree": 2}))
    [record] = train_jobs([Job(config, tmp_path)])
    assert isinstance(record, RunRecord)
    assert record.curve == "degree(2)"
    former = undigested(path := tmp_path / "result.json") | {"curve": "None"}  # as earlier versions wrote it
    path.write_text(json.dumps(former))
    assert records.read_stored(tmp_path).record.curve == "degree(2)"

"""Successive halving: who goes on, that those who do are plain runs, and that it can be killed anywhere."""

import json
import math
from typing import Any

import pytest
from conftest import files as files_in
from conftest import small
from killed import command as process
from killed import kill, results, start, steps, table, wait_for
from test_training import trained

from fractal_ifs.config.run import Job
from fractal_ifs.errors import ConfigError
from fractal_ifs.runs.locks import Busy
from fractal_ifs.runs.records import Status, read_record
from fractal_ifs.sweeps import halving as module
from fractal_ifs.sweeps.finished import finished_jobs
from fractal_ifs.sweeps.halving import train_by_halving
from fractal_ifs.sweeps.rungs import Halving
from fractal_ifs.sweeps.status import status
from fractal_ifs.sweeps.sweep import train_jobs
from fractal_ifs.training.rounds import SweepRounds

KEYS = {"steps": 160, "eval_every": 20, "data__test_size": 997}
LRS = (1e-4, 1e-3, 5e-3, 2e-2, 1e-1)
CURVES = (1, 6)


def keys(**others):
    return Halving.parse({"params": None, "over": ["lr"], "eta": 2, "least": 20, "by": "best"} | others)


def configs(**others):
    return [small(curve=curve, lr=lr, **{**KEYS, **others}) for curve in CURVES for lr in LRS]


def jobs_in(root, **others):
    return [Job(config, root / f"{config.curve.name}-{config.lr}") for config in configs(**others)]


def halved(jobs, **others) -> Any:
    return train_by_halving(jobs, finished_jobs(jobs), keys(**others), "inline", 0)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """All runs trained to their end, as they are and in directories."""
    root = tmp_path_factory.mktemp("plain")
    jobs = jobs_in(root)
    return root, trained([job.config for job in jobs], directories=[job.directory for job in jobs])


def decided(runs, eta=2, least=20, by="best"):
    """Where each run of a cell is to be pruned, by its whole history: None for the winner. As simply as can be."""
    places: list[Any] = [None] * len(runs)
    going_on, rung = list(range(len(runs))), least
    while len(going_on) > 1 and rung < 160:
        up_to = [[row.test_acc for row in runs[n].history if row.step <= rung] for n in going_on]
        value = [max(curve) if by == "best" else curve[-1] for curve in up_to]
        order = sorted(range(len(going_on)), key=lambda place: (-value[place], place))
        kept = order[: math.ceil(len(going_on) / eta)]
        for place in set(order) - set(kept):
            places[going_on[place]] = rung
        going_on, rung = sorted(going_on[place] for place in kept), rung * eta
    return places


def test_of_equals_the_first_of_the_grid_go_on(tmp_path, caplog):
    """With no step to learn in, all are at the same accuracy."""
    caplog.set_level("INFO")
    lrs = (3e-12, 1e-12, 2e-12, 4e-12, 5e-12)
    jobs = [Job(small(lr=lr, **KEYS), tmp_path / str(lr)) for lr in lrs]
    ended = halved(jobs)
    assert [record.stopped for record in ended] == [
        None,
        *(f"rung {rung}, by the best test_acc" for rung in ("3 at step 80", "2 at step 40", *["1 at step 20"] * 2)),
    ]
    assert "rung 1: in 1 cell, of equals those went on that come first" in caplog.text


@pytest.mark.parametrize("asked", [{}, {"eta": 3, "least": 40}, {"by": "last"}], ids=str)
def test_each_cell_keeps_its_best_and_survivors_are_plain_runs(tmp_path, plain, asked):
    root, runs = plain
    jobs = jobs_in(tmp_path)
    ended = halved(jobs, **asked)
    expected = [*decided(runs[:5], **asked), *decided(runs[5:], **asked)]
    assert [record.steps if record.status == Status.PRUNED else None for record in ended] == expected
    straight, here = results(root), results(tmp_path)
    directories: list[Any] = [job.directory for job in jobs]
    for record, rung, run, directory in zip(ended, expected, runs, directories, strict=True):
        name = directory.name
        assert read_record(directory) == record
        assert (record.fingerprint, record.steps_asked) == (run.config.fingerprint, 160)
        if rung is None:
            assert here[name] == straight[name]  # weights, moments, history, record
        else:
            assert here[name][1] == straight[name][1][: rung // 20]
            number = round(math.log(rung / asked.get("least", 20), asked.get("eta", 2))) + 1
            assert record.stopped == f"rung {number} at step {rung}, by the {asked.get('by', 'best')} test_acc"
            assert f"pruned: rung {number}" in (directory / "train.log").read_text()
    before = files_in(tmp_path)
    assert [record.plain() for record in halved(jobs, **asked)] == [record.plain() for record in ended]
    assert files_in(tmp_path) == before


def test_every_key_may_compete_and_all_others_are_cells():
    grid = [small(width=width, seed=seed, lr=lr) for width in (4, 8) for seed in (0, 1) for lr in (1e-3, 1e-2)]
    assert keys().cells(grid) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert keys(over=["width", "lr"]).cells(grid) == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert keys(over=["curve"]).cells([small(curve=1), small(curve=4), small(curve=1, fractal="vicsek")]) == [
        [0, 1],
        [2],
    ]
    assert keys(over=["data.margin"]).cells([small(), small(data__margin=0.001), small(lr=0.5)]) == [[0, 1], [2]]


def test_a_key_competes_that_only_some_choices_of_a_group_have():
    sgd = [small(**KEYS, optimizer="sgd", optimizer__momentum=momentum) for momentum in (0.0, 0.5, 0.9)]
    over = keys(over=["optimizer.momentum"])
    over.check(sgd)
    assert over.cells(sgd) == [[0, 1, 2]]
    both = [*sgd, small(**KEYS), small(**KEYS, optimizer="adamw")]
    over.check(both)
    assert over.cells(both) == [[0, 1, 2], [3], [4]]
    assert keys(over=["optimizer"]).cells(both) == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("place", ["in training", "between decisions"])
def test_interrupted_anywhere_it_ends_the_same(tmp_path, monkeypatch, place):
    jobs, straight = jobs_in(tmp_path / "a"), jobs_in(tmp_path / "b")
    halved(straight)
    patched, name = (SweepRounds, "round") if place == "in training" else (module, "write_record")
    whole = getattr(patched, name)
    times = 0
    while True:
        left = [2]

        def stop(*arguments, left=left):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return whole(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(patched, name, stop)
            try:
                halved(jobs)
                break
            except KeyboardInterrupt:
                times += 1
    assert times > 3
    assert results(tmp_path / "a") == results(tmp_path / "b")


def test_a_decision_that_was_killed_leaves_nothing_behind(tmp_path, monkeypatch):
    jobs = jobs_in(tmp_path)

    def kill(directory, *_):
        (directory / ".result.json.0123456789abcdef0123456789abcdef").write_text("half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_record", kill)
        with pytest.raises(KeyboardInterrupt):
            halved(jobs)
    assert list(tmp_path.rglob(".result.json.*"))
    halved(jobs)
    assert not list(tmp_path.rglob(".result.json.*"))


def test_what_diverges_loses_and_what_fails_holds_up_its_cell(tmp_path, monkeypatch):
    jobs = [Job(small(lr=lr, loss="squared", **KEYS), tmp_path / str(lr)) for lr in (1e30, 1e-3)]
    jobs += [Job(small(lr=lr, curve=6, **KEYS), tmp_path / f"6-{lr}") for lr in LRS[:2]]
    (tmp_path / f"6-{LRS[1]}").write_text("in its place")
    records = halved(jobs)
    assert [record.status for record in records[:3]] == ["diverged", "finished", "paused"]
    assert isinstance(records[3], OSError)
    assert status(tmp_path).states["paused"] == 1
    (tmp_path / f"6-{LRS[1]}").unlink()
    again = halved(jobs)
    assert sorted(record.status for record in again[2:]) == ["finished", "pruned"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Busy("another process trains here")])
def test_one_that_can_not_be_pruned_ends_no_other(tmp_path, monkeypatch, error):
    jobs, straight = jobs_in(tmp_path / "a"), jobs_in(tmp_path / "b")
    expected = halved(straight)
    first = next(number for number, record in enumerate(expected) if record.status == Status.PRUNED)
    patched, name = (module, "write_record") if isinstance(error, OSError) else (module.locks, "of_directory")
    whole = getattr(patched, name)

    def fail(directory, *more):
        if directory == jobs[first].directory and (name == "write_record" or more == ("run",)) and pruning:
            raise error
        return whole(directory, *more)

    prune, pruning = module._prune, []

    def seen(*arguments):
        pruning.append(True)
        try:
            return prune(*arguments)
        finally:
            pruning.clear()

    with monkeypatch.context() as patch:
        patch.setattr(patched, name, fail)
        patch.setattr(module, "_prune", seen)
        ended = halved(jobs)
    assert ended[first] is error
    assert [e.status for n, e in enumerate(ended) if n != first] == [
        e.status for n, e in enumerate(expected) if n != first
    ]
    assert [record.status for record in halved(jobs)] == [record.status for record in expected]
    assert results(tmp_path / "a") == results(tmp_path / "b")


def test_each_rung_reads_a_history_once(tmp_path, monkeypatch):
    jobs = jobs_in(tmp_path)
    halved(jobs)
    read, reads = module.read_history, []
    monkeypatch.setattr(module, "read_history", lambda directory: (reads.append(directory), read(directory))[1])
    halved(jobs)
    per_rung = 5 + 3 + 2  # runs of a cell at each rung
    assert len(reads) <= len(CURVES) * per_rung


def test_a_plain_sweep_takes_the_pruned_further(tmp_path, plain):
    jobs = jobs_in(tmp_path)
    halved(jobs)
    train_jobs(jobs)
    assert results(tmp_path) == results(plain[0])
    before = files_in(tmp_path, "result.json")
    assert {record.status for record in halved(jobs)} == {"finished"}  # nothing that is finished is pruned
    assert files_in(tmp_path, "result.json") == before


def test_overwrite_trains_all_of_it_again_once(tmp_path):
    jobs = jobs_in(tmp_path)
    first = [record.plain() for record in halved(jobs)]
    again = halved(
        [job._replace(config=type(job.config).parse(job.config.plain() | {"overwrite": True})) for job in jobs]
    )
    told = ("status", "best_test_acc", "steps", "stopped")
    assert [[record[name] for name in told] for record in again] == [[one[name] for name in told] for one in first]


WORDS = ["curve=1,4", "lr=1e-4,1e-3,1e-2", "width=8", "depth=2", "steps=80", "eval_every=20", "data.train_size=1000"]
WORDS += ["data.test_size=200", "logger=none", "sweep=s", "hydra/sweeper=halving"]


def test_the_command(command, tmp_path):
    ended = command("-m", *WORDS)
    assert ended.status == 0
    assert "rung 1: 4 of 6 runs go on" in ended.out
    assert "rung 2: 2 of 4 runs go on" in ended.out
    sweep = tmp_path / "multirun" / "s"
    records = [json.loads(path.read_text()) for path in sweep.rglob("result.json")]
    where = [record["stopped"] for record in records]
    assert [sum(f"rung {rung} at step" in str(each) for each in where) for rung in (1, 2)] == [2, 2]
    assert sorted(record["status"] for record in records) == ["finished"] * 2 + ["pruned"] * 4
    found = status(sweep)
    assert (found.states["pruned"], found.steps, found.steps_asked) == (4, 280, 280)
    before = files_in(sweep, "*.*t*")  # records, histories, checkpoints
    again = command("-m", *WORDS)
    assert again.status == 0
    kept = ("result.json", "history.csv", "checkpoint.pt", "train.log")
    after = files_in(sweep, "*.*t*")
    assert {name: content for name, content in after.items() if name.endswith(kept)} == {
        name: content for name, content in before.items() if name.endswith(kept)
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra.sweeper.over=[width]"], "hydra.sweeper.over=[width]: no two jobs of this sweep differ"),
        (["hydra.sweeper.eta=1"], "hydra.sweeper.eta=1: must be a whole number >= 2"),
        (["hydra.sweeper.best_lr=x.csv"], "hydra.sweeper.best_lr=x.csv: must be the path of a CSV of finished runs"),
        (["hydra/launcher=slurm"], "hydra/sweeper=halving: needs hydra/launcher=fused"),
    ],
)
def test_the_command_refuses_in_a_line(command, tmp_path, words, said):
    ended = command("-m", *WORDS, *words)
    assert str(ended.status).startswith(f"error: {said}")
    assert "\n" not in str(ended.status)
    assert not list(tmp_path.rglob("train.log"))


@pytest.mark.parametrize(
    ("own", "of_jobs", "said"),
    [
        ({"over": ["foo"]}, {}, r"hydra.sweeper.over=\[foo\]: there is no key foo"),
        ({"over": ["optimizer.momentum"]}, {}, r"hydra.sweeper.over=.*: there is no key optimizer.momentum"),
        ({"over": ["lr", "steps"]}, {}, r"hydra.sweeper.over=\[lr, steps\]: can't have steps"),
        ({"over": ["eval_every"]}, {}, r"hydra.sweeper.over=\[eval_every\]: can't have eval_every"),
        ({"over": "lr"}, {}, "hydra.sweeper.over=lr: must be a list that is not empty"),
        ({"over": []}, {}, "hydra.sweeper.over=.*: must be a list that is not empty"),
        ({"by": "worst"}, {}, "hydra.sweeper.by=worst: must be one of best, last"),
        ({"least": 30}, {}, "hydra.sweeper.least=30: must be a multiple of eval_every=20"),
        ({"least": 160}, {}, "hydra.sweeper.least=160: must be less than steps=160"),
        ({}, {"training": "layerwise"}, "training=layerwise: must be joint with hydra/sweeper=halving"),
        ({}, {"kept": "kept.csv"}, "kept=kept.csv: must be empty with hydra/sweeper=halving"),
    ],
)
def test_what_can_not_be_halved_is_refused(own, of_jobs, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        keys(**own).check([*configs()[:2], *configs(**of_jobs)[2:]])


def test_a_single_run_has_nothing_to_halve(command):
    one = [word for word in WORDS if not word.startswith(("curve", "lr"))]
    assert command(*one).status == "error: hydra/sweeper=halving: is for a sweep: add -m"


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine", [["engine=auto", "steps=20000"], ["engine=torch", "workers=2", "steps=1600"]], ids=str
)
def test_killed_it_goes_on_to_the_same_bits(tmp_path, engine):
    words = ["-m", *WORDS[:5], *WORDS[6:], "eval_every=200", "hydra.sweeper.least=400", "width=20", *engine]
    words = [word for word in words if word not in ("width=8", "steps=80")]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for folder in (straight, killed):
        folder.mkdir()
    assert process(straight, *words)[0] == 0
    for reached in (200, 1000):
        running = start(killed, *words)
        assert wait_for(lambda: max(steps(killed).values(), default=0) > reached, running)  # noqa: B023
        kill(running)
    code, text = process(killed, *words)
    assert code == 0, text
    assert results(killed) == results(straight)
    assert [row["stopped"] for row in table(killed / "multirun/s")] == [
        row["stopped"] for row in table(straight / "multirun/s")
    ]

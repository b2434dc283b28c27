"""Where the jobs of docs/cluster.md go: 4 nodes of 8 GPUs, without any."""

import contextlib
import json
import multiprocessing
import os
import re
import stat
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import composed, slurm_settings, small

from fractal_ifs.config import machine
from fractal_ifs.config.machine import gpus
from fractal_ifs.config.run import Job
from fractal_ifs.data.points import _shared
from fractal_ifs.errors import ConfigError, FailedElsewhere
from fractal_ifs.runs.records import Begun, RunRecord, Status, write_begun
from fractal_ifs.sweeps import crew, executors, slurm
from fractal_ifs.sweeps.executors import processes, shares
from fractal_ifs.sweeps.slurm import deal
from fractal_ifs.sweeps.slurm_queue import submitted_tasks
from fractal_ifs.sweeps.status import status
from fractal_ifs.sweeps.sweep import train_jobs
from fractal_ifs.sweeps.worker import GpuFailed, Worker, recorded
from fractal_ifs.training.grouping import groups_of


def test_no_older_record_stands_for_what_a_broken_gpu_never_began(tmp_path):
    config = small()
    train_jobs([Job(config, tmp_path)])
    for overwrite in (False, True):
        found = recorded(Job(replace(config, overwrite=overwrite), tmp_path), GpuFailed("it is gone"))
        assert isinstance(found, GpuFailed) == overwrite


def test_a_sweep_on_four_nodes_of_eight_gpus(monkeypatch):
    composed = {curve: small(trainer="cpu", engine="torch", curve=curve) for curve in (1, 4, 6)}
    jobs = [
        Job(replace(composed[curve], depth=depth, seed=seed).on("gpu"), Path(f"{depth}-{seed}-{curve}"))
        for depth in (1, 2, 3, 4, 5)
        for seed in range(16)
        for curve in (1, 4, 6)
    ]
    groups = groups_of(jobs)
    assert [len(numbers) for numbers in groups] == [48] * 5  # a group for each depth
    hands = deal(groups, 4)
    assert [len(hand) for hand in hands] == [60] * 4
    for hand in hands:
        assert Counter(jobs[n].config.depth for n in hand) == dict.fromkeys((1, 2, 3, 4, 5), 12)
    assert sorted(n for hand in hands for n in hand) == list(range(240))
    # On a node, as Slurm shows it to the task:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
    assert len(gpus()) == processes(jobs[0].config) == 8
    assert [len(share) for share in shares(hands[0][:12], 8)] == [2, 2, 2, 2, 1, 1, 1, 1]


def test_equals_with_the_same_points_stand_together():
    jobs = [Job(small(lr=lr, seed=seed), None) for lr in (1e-3, 1e-2) for seed in range(3)]
    larger = Job(small(width=30, seed=2), None)
    assert groups_of([*jobs, larger]) == [[6, 0, 3, 1, 4, 2, 5]]


def test_a_sweep_lets_go_of_the_points_of_runs_that_have_ended(monkeypatch):
    """Of eight runs the first end before the last begins, and no two have the same points."""
    monkeypatch.setattr("fractal_ifs.engines.native.FLOPS_PER_SECOND", 1.0)
    most, before = [], set(_shared)  # which tests before this one may still hold
    jobs = [Job(small(seed=seed, workers=1), None) for seed in range(900, 908)]
    executors.train_group(jobs, 2, lambda _: most.append(len(set(_shared) - before)))
    assert 0 < max(most) < 8
    assert most[-1] == 0


def test_more_tasks_than_jobs():
    assert deal([[4], [2, 7]], 5) == [[4], [2], [7]]


def test_a_job_that_ended_since_it_was_looked_at_is_not_submitted(tmp_path, monkeypatch):
    sweep = tmp_path / "s"
    jobs = [Job(small(seed=seed), sweep / str(seed)) for seed in (0, 1, 2)]
    train_jobs(jobs[:1])
    submitted = []
    monkeypatch.setattr(slurm, "submitted_tasks", lambda _: {"1_0": [jobs[0].directory, jobs[1].directory]})
    monkeypatch.setattr(slurm, "active_tasks", lambda _: {"1_0": "RUNNING"})
    monkeypatch.setattr(slurm, "submit", lambda hands, *_: submitted.extend(hands) or ["2_0"])
    settings = slurm_settings(wait=False)
    slurm.train_in_slurm(jobs, {}, [sweep], settings)  # the task still runs: its jobs are left to it
    assert submitted == [[jobs[2]]]
    monkeypatch.setattr(slurm, "active_tasks", lambda _: {})
    submitted.clear()
    first, *others = slurm.train_in_slurm(jobs, {}, [sweep], settings)  # it has left, and only the first has its record
    assert sorted(job.config.seed for hand in submitted for job in hand) == [1, 2]
    assert isinstance(first, RunRecord)
    assert first.config.seed == 0
    assert others == [None, None]


def test_jobs_of_several_sweeps_are_submitted_once(monkeypatch, tmp_path):
    """As with ``hydra.sweep.dir=out/${fractal.name}``: each says what tasks its runs are in."""
    sweeps = [tmp_path / "a", tmp_path / "b"]
    jobs = [Job(small(seed=seed), sweep / str(seed)) for seed in range(2) for sweep in sweeps]
    submitted = []

    class Executor:
        def __init__(self, folder):
            pass

        def update_parameters(self, **_):
            pass

        def batch(self):
            return contextlib.nullcontext()

        def submit(self, task):
            submitted.append([job.directory for job in task.jobs])
            return SimpleNamespace(job_id=f"7_{len(submitted) - 1}")

    monkeypatch.setattr("submitit.SlurmExecutor", Executor)
    monkeypatch.setattr(slurm, "snapshot", lambda folder: folder)
    monkeypatch.setattr(slurm, "active_tasks", lambda tasks: dict.fromkeys(tasks, ("PENDING", "None")))
    settings = slurm_settings(wait=False, tasks=2)
    slurm.train_in_slurm(jobs, {}, sweeps, settings)
    assert {run for hand in submitted for run in hand} == {job.directory for job in jobs}
    for sweep in sweeps:
        assert {run.parent for runs in submitted_tasks(sweep).values() for run in runs} == {sweep}
    assert submitted_tasks(sweeps[0]).keys() == submitted_tasks(*sweeps).keys()  # they run from the code in its folder
    for some, where in ((jobs, sweeps[::-1]), (jobs[1::2], sweeps[1:]), (jobs[::2], sweeps[:1])):
        slurm.train_in_slurm(some, {}, where, settings)
    assert len(submitted) == 2


def test_what_sbatch_refuses_is_told_once(monkeypatch, tmp_path, capfd):
    pytest.importorskip("submitit")
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "srun"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\necho sbatch: error: no >&2\necho '  partition' >&2\nexit 1\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ConfigError) as refused:
        slurm.submit([[Job(small(), tmp_path / "s" / "run")]], [tmp_path / "s"], slurm_settings())
    assert str(refused.value) == "hydra/launcher=slurm: can't submit: sbatch: error: no partition"
    assert capfd.readouterr() == ("", "")


def test_of_a_job_that_slurm_has_ended_only_its_own_new_record_counts(monkeypatch, tmp_path):
    """Not one that lay there before, as with ``overwrite``, nor another config's. All wait for records together."""
    monkeypatch.setattr(slurm, "last_state", lambda _: "")
    monkeypatch.setattr(slurm, "PATIENCE", 0.4)
    train_jobs([Job(small(seed=seed), tmp_path / str(seed)) for seed in range(4)])
    jobs = [Job(small(seed=seed, overwrite=True), tmp_path / str(seed)) for seed in range(3)]
    jobs += [
        Job(small(seed=5), tmp_path / "3"),
        *(Job(small(seed=seed), tmp_path / str(seed)) for seed in range(6, 30)),
    ]
    monkeypatch.setattr(slurm, "submitted_tasks", lambda _: {})
    monkeypatch.setattr(slurm, "active_tasks", lambda _: {})
    monkeypatch.setattr(slurm, "finished_or_kept", lambda _: None)
    monkeypatch.setattr(slurm, "follow", lambda _: train_jobs(jobs[:1]))  # Slurm begins no other
    monkeypatch.setattr(slurm, "submit", lambda *_: ["2_0"])
    begun = time.monotonic()
    first, *others = slurm.train_in_slurm(jobs, {}, [tmp_path], slurm_settings())
    assert isinstance(first, RunRecord)
    assert first.status == Status.FINISHED
    assert all(isinstance(other, FailedElsewhere) for other in others)
    assert time.monotonic() - begun < 10  # and not .4 s for each


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("time", 0), ("cpus", 0), ("gpus", -1), ("tasks", 0), ("memory", 0), ("warning", 10**6)),
        *(("setup", "module load cuda"), ("setup", [1]), ("more", 5), ("wait", 1), ("time", "long")),
    ],
)
def test_refused_settings(key, value):
    with pytest.raises(ConfigError, match=re.escape(f"hydra.launcher.{key}={value}: must be")):
        slurm_settings(**{key: value})


def test_slurm_tasks_run_a_copy_that_nobody_could_prepare(tmp_path):
    """A received sweep may hold a directory of code, with a compiled file that Python would take without a look."""
    first = slurm.snapshot(tmp_path)
    evil = first / "fractal_ifs" / "__pycache__"
    evil.mkdir()
    (evil / "errors.cpython-311.pyc").write_bytes(b"evil")
    second = slurm.snapshot(tmp_path)
    assert second != first
    assert stat.S_IMODE(second.stat().st_mode) == 0o700
    copied = {path.relative_to(second / "fractal_ifs") for path in (second / "fractal_ifs").rglob("*.py")}
    package = Path(slurm.__file__).parents[1]
    own = {path.relative_to(package) for path in package.rglob("*.py")}
    assert copied == own | {Path("conf/__init__.py")}  # conf may be a link, which is followed
    assert (second / "fractal_ifs" / "conf" / "config.yaml").is_file()
    assert not list(second.rglob("*.pyc"))


@pytest.mark.parametrize(
    "content",
    [
        *('{"1_0": 5}', '{"1_0": [5]}', "[1]", "5", "null", "{", "[" * 100_000, "\xff"),
        *("a link to nothing", "a pipe", "a directory"),
    ],
    ids=lambda content: content[:20],
)
def test_a_file_of_tasks_that_is_none_costs_one_line(tmp_path, content, caplog):
    path = tmp_path / "slurm" / "2.json"
    path.parent.mkdir()
    path.with_name("1.json").write_text(json.dumps({"1_0": [str(tmp_path / "run")]}))
    if content == "a pipe":
        os.mkfifo(path)
    elif content == "a directory":
        path.mkdir()
    elif content == "a link to nothing":
        path.symlink_to("nowhere")
    else:
        path.write_text(content, encoding="latin-1")
    assert submitted_tasks(tmp_path) == {"1_0": [tmp_path / "run"]}
    assert caplog.text.count(f"{path} can't be read: ") == 1


def test_the_state_of_a_task_is_seen_by_any_path_that_leads_to_its_run(tmp_path, monkeypatch):
    moved = tmp_path / "disk"
    for name in ("begun", "pending"):
        (moved / name).mkdir(parents=True)
        write_begun(moved / name, Begun(small(), None))
    (tmp_path / "sweep").symlink_to("disk")
    (moved / "slurm").mkdir()
    for submitted in (moved, tmp_path / "sweep"):
        tasks = {f"1_{at}": [str(submitted / name)] for at, name in enumerate(("begun", "pending"))}
        (moved / "slurm" / "1.json").write_text(json.dumps(tasks))
        active = {"1_0": ("RUNNING", "None"), "1_1": ("PENDING", "Resources")}
        monkeypatch.setattr("fractal_ifs.sweeps.status.active_tasks", lambda _, active=active: active)
        for path in (moved, tmp_path / "sweep", tmp_path):
            assert status(path).states == {"running": 1, "queued": 1}


def test_copies_of_the_code_that_no_task_needs_are_removed(tmp_path, monkeypatch):
    """None of another's, and none while Slurm has a task that may run from there."""
    folder = tmp_path / "slurm"
    for name, mode in (("code-ours", 0o700), ("code-received", 0o755), ("aside", 0o700)):
        (folder / name / "fractal_ifs").mkdir(parents=True)
        (folder / name).chmod(mode)
    (folder / "code-link").symlink_to(folder / "aside")
    job = Job(small(), tmp_path / "0")
    monkeypatch.setattr(slurm, "submitted_tasks", lambda _: {"1_0": [tmp_path / "1"]})
    monkeypatch.setattr(slurm, "submit", lambda *_: ["2_0"])
    left = ["aside", "code-link", "code-received"]
    for active, expected in (({"1_0": "RUNNING"}, ["aside", "code-link", "code-ours", "code-received"]), ({}, left)):
        monkeypatch.setattr(slurm, "active_tasks", lambda _, active=active: active)
        slurm.train_in_slurm([job], {}, [tmp_path], slurm_settings(wait=False))
        assert sorted(path.name for path in folder.iterdir()) == expected
    assert (folder / "aside" / "fractal_ifs").is_dir()


# --- GPUs that fail, in worker processes that are simulated


class OnGpu(Worker):
    """A worker whose GPU does what ``plan`` says: by its name, what becomes of its groups, one after the other."""

    plan: dict[str, list[str]] = {}  # noqa: RUF012
    begun: list[tuple[str | None, list[int]]] = []  # noqa: RUF012

    def __init__(self, device, stack, rank=None):
        self.device, self.numbers, self.fault, self.crowded = device, [], None, False
        self.connection, self.theirs = multiprocessing.Pipe()
        self.process = SimpleNamespace(is_alive=lambda: True, pid=None)
        self.answers = self.plan.get(str(device), [])

    def begin(self, numbers, jobs):
        self.numbers = numbers
        self.begun.append((self.device, numbers))
        answer = self.answers.pop(0) if self.answers else "well"
        records = [RunRecord.of(jobs[n].config, Status.FINISHED, seconds=1.0, params=1, steps=100) for n in numbers]
        self.theirs.send(
            {
                "well": (records, None),
                "kills": (["RuntimeError: CUDA error"] * len(numbers), "CUDA error: gone"),
                "broken": ([], "CUDA error: no device"),
                "full": (["OutOfMemoryError: CUDA out of memory. Tried"] * len(numbers), "CUDA out of memory. Tried"),
                "crowded": ([], "CUDA error: out of memory"),
                "breaks": ([*records[:1], *["RuntimeError: CUDA error"] * (len(numbers) - 1)], "CUDA error: gone"),
            }[answer]
        )


def ended_on_gpus(jobs, plan, monkeypatch):
    """The outcomes of jobs by their numbers, of workers whose GPUs do what ``plan`` says."""
    monkeypatch.setattr(crew, "Worker", OnGpu)
    monkeypatch.setattr(OnGpu, "plan", {device: list(answers) for device, answers in plan.items()})
    monkeypatch.setattr(OnGpu, "begun", [])
    ended = list(executors.execute(jobs, "local", 0, lambda rounds: None, lambda numbers, standing: None))
    assert sorted(n for numbers, _ in ended for n in numbers) == list(range(len(jobs)))  # each once
    return {n: outcome for numbers, found in ended for n, outcome in zip(numbers, found, strict=True)}


def test_runs_of_a_cpu_and_of_gpus_have_workers_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    of = [small(engine="torch", seed=seed, workers=2) for seed in range(4)]
    jobs = [Job(config.on("gpu" if config.seed % 2 else "cpu"), tmp_path / str(config.seed)) for config in of]
    assert len(ended_on_gpus(jobs, {}, monkeypatch)) == 4
    assert sorted((device or "cpu", *numbers) for device, numbers in OnGpu.begun) == [
        ("0", 1),
        ("1", 3),
        ("cpu", 0),
        ("cpu", 2),
    ]


@pytest.mark.parametrize(
    ("plan", "lost", "finished"),
    [
        ({}, [], 6),
        ({"1": ["broken"]}, ["1"], 6),  # its jobs go to another
        ({"1": ["breaks"]}, ["1"], 6),
        ({"2": ["well", "broken"], "1": ["breaks"]}, ["1", "2"], 6),
        ({"2": ["well", "kills"], "1": ["kills"]}, ["1", "2"], 4),  # what has broken two GPUs isn't given a third
        ({"0": ["broken"], "1": ["broken"], "2": ["broken"]}, ["0", "1", "2"], 0),
        ({"0": ["breaks", "breaks"], "1": ["breaks"], "2": ["breaks"]}, ["0", "1", "2"], 3),
    ],
    ids=str,
)
def test_a_gpu_that_fails_is_left_out_and_said(plan, lost, finished, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0, 1,2,-1,5")
    assert gpus() == ["0", "1", "2"]
    jobs = [Job(small(engine="torch", seed=seed).on("gpu"), tmp_path / str(seed)) for seed in range(6)]
    with caplog.at_level("WARNING"):
        outcomes = ended_on_gpus(jobs, plan, monkeypatch)
    assert sum(isinstance(outcome, RunRecord) for outcome in outcomes.values()) == finished
    told = [text for text in caplog.messages if "is left out" in text]
    assert sorted(text.split()[1] for text in told) == sorted(lost)
    begun = Counter(n for _, numbers in OnGpu.begun for n in numbers)
    assert max(begun.values()) <= 3
    for number, outcome in outcomes.items():
        if isinstance(outcome, GpuFailed):
            record = json.loads((tmp_path / str(number) / "result.json").read_text())
            assert record["status"] == "failed"


def cnn(seed=0, **keys):
    config = composed(data="cifar10", model="cnn", width=32, depth=3, seed=seed, logger="none", **keys)
    return config.on("gpu")


GIB = 1 << 30


@pytest.mark.parametrize(
    ("cores", "memory", "visible", "expected"),
    [
        (16, 80 * GIB, "0", 4),  # no more, whatever there is
        (3, 80 * GIB, "0", 3),  # a core launches the kernels of one
        (8, 80 * GIB, "0,1,2", 6),
        (1, 80 * GIB, "0,1", 2),
        (16, 4 * GIB, "0", 2),  # of each CUDA takes 1 GiB
        (16, 1 * GIB, "0", 1),
        (16, 0, "0,1", 2),  # unknown
    ],
)
def test_several_cnns_train_on_a_gpu_at_once(cores, memory, visible, expected, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(machine, "gpu_memory", lambda: memory)
    assert processes(cnn()) == expected
    assert processes(replace(cnn(), engine="lightning")) == len(visible.split(","))
    assert processes(small(engine="torch").on("gpu")) == len(visible.split(","))
    assert processes(replace(cnn(), workers=7)) == 7


def test_a_wide_cnn_leaves_room_for_fewer(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(machine, "cores", lambda: 16)
    monkeypatch.setattr(machine, "gpu_memory", lambda: 8 * GIB)
    wide = replace(cnn(), width=1024)
    assert processes(wide) < processes(replace(cnn(), width=256)) <= processes(cnn()) == 4
    # by hand: 16 bytes for each of 2 x 25 x 1024^2 weights, 12 for each number of a batch's maps, 4 for each pixel
    needed = 16 * 50 * 1024**2 + 32 * 1024 + 12 * 128 * 1024 * 24**2 + 4 * 24**2 * 60_000
    monkeypatch.setattr(machine, "gpu_memory", lambda: 3 * (GIB + 3 * needed))
    assert processes(wide) == 3
    monkeypatch.setattr(machine, "gpu_memory", lambda: 3 * (GIB + 3 * needed) - 1)
    assert processes(wide) == 2


@pytest.mark.parametrize(
    ("workers", "jobs", "expected"),
    [(8, 9, {"0": 4, "1": 4}), (5, 9, {"0": 3, "1": 2}), (1, 9, None), (3, 2, {"0": 1, "1": 1}), (8, 1, None)],
)
def test_workers_are_dealt_over_the_gpus(workers, jobs, expected, monkeypatch):
    """None: there are none, and this process trains."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(executors, "train_group", lambda group, *_: [RuntimeError("here")] * len(group))
    made = []
    begin = OnGpu.__init__
    monkeypatch.setattr(
        OnGpu, "__init__", lambda self, device, *rest: made.append(device) or begin(self, device, *rest)
    )
    ended_on_gpus([Job(cnn(seed, workers=workers), None) for seed in range(jobs)], {}, monkeypatch)
    if expected is None:
        assert made == []
    else:  # each was at work at the beginning, before the first ended
        assert Counter(device for device, _ in OnGpu.begun[: sum(expected.values())]) == expected
        assert set(made) == set(expected)


@pytest.mark.parametrize(
    ("plan", "told", "begun", "finished"),
    [
        # A GPU of two workers is lost: the other of the two ends well what it has, and begins nothing more.
        ({"1": ["kills"]}, ["GPU 1 is left out"], {"1": 2}, 12),
        ({"1": ["kills", "kills"]}, ["GPU 1 is left out"], {"1": 2}, 12),
        ({"1": ["broken"]}, ["GPU 1 is left out"], {"1": 2}, 12),
        # No GPU is left: those that still train end, and all that wait have failed.
        ({"0": ["broken"], "1": ["broken"]}, ["GPU 0 is left out", "GPU 1 is left out"], {"0": 2, "1": 2}, 2),
        # No memory is left beside another: that one goes on, and trains what was lost.
        ({"1": ["full"]}, ["GPU 1 has a worker less"], {}, 12),
        ({"1": ["crowded"]}, ["GPU 1 has a worker less"], {}, 12),
        ({"0": ["crowded"], "1": ["full"]}, ["GPU 0 has a worker less", "GPU 1 has a worker less"], {}, 12),
        # Both of a GPU run out: what they had begins again, one by one.
        ({"1": ["full", "full"]}, ["GPU 1 has a worker less"] * 2, {}, 12),
        ({"1": ["crowded", "full"], "0": ["full", "full"]}, [f"GPU {n} has a worker less" for n in "0011"], {}, 12),
        ({"1": ["well", "full", "full", "well", "full"]}, ["GPU 1 has a worker less"] * 2, {}, 11),  # the last: alone
    ],
    ids=str,
)
def test_the_other_workers_of_a_gpu_that_fails(plan, told, begun, finished, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    jobs = [Job(cnn(seed, workers=4), tmp_path / str(seed)) for seed in range(12)]
    with caplog.at_level("WARNING"):
        outcomes = ended_on_gpus(jobs, plan, monkeypatch)
    assert sum(isinstance(outcome, RunRecord) for outcome in outcomes.values()) == finished
    assert sorted(text.split(":")[0] for text in caplog.messages if text.startswith("GPU")) == told
    on = Counter(device for device, _ in OnGpu.begun)
    assert {device: on[device] for device in begun} == begun
    for number, outcome in outcomes.items():
        if isinstance(outcome, GpuFailed):
            assert json.loads((tmp_path / str(number) / "result.json").read_text())["status"] == "failed"


def test_two_workers_of_the_only_gpu_that_run_out_of_memory_begin_again(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    jobs = [Job(cnn(seed, workers=2), None) for seed in range(4)]
    outcomes = ended_on_gpus(jobs, {"0": ["full", "full"]}, monkeypatch)
    assert all(isinstance(outcome, RunRecord) for outcome in outcomes.values())
    assert sorted(Counter(n for _, numbers in OnGpu.begun for n in numbers).values()) == [1, 1, 2, 2]


@pytest.fixture
def crews(monkeypatch):
    """How many workers a crew had, and its groups, of each crew that something would have trained in."""
    crews = []

    class Counted:
        def __init__(self, jobs, stack):
            pass

        def train(self, groups, count, told):
            crews.append((count, groups))
            return []

    monkeypatch.setattr(executors, "Crew", Counted)
    return crews


@pytest.mark.parametrize(
    ("executor", "keys", "in_workers"),
    [
        ("auto", {"steps": 400}, False),
        ("auto", {"steps": 400, "engine": "lightning"}, False),
        ("auto", {"steps": 4000}, True),
        ("auto", {"steps": 400, "width": 3000}, True),
        ("auto", {"steps": 400, "workers": 2}, True),  # asked for
        ("auto", {"steps": 400, "eval_every": 1, "data__test_size": 10**6}, True),
        ("local", {"steps": 400}, True),
        ("inline", {"steps": 4000}, False),
    ],
)
def test_no_worker_starts_for_what_takes_seconds(monkeypatch, crews, executor, keys, in_workers):
    monkeypatch.setattr(executors, "cores", lambda: 2)
    inline = []
    monkeypatch.setattr(executors, "train_group", lambda jobs, *_: inline.extend(jobs) or [None] * len(jobs))
    jobs = [Job(small(seed=seed, **({"engine": "torch", "depth": 2, "width": 10} | keys)), None) for seed in range(4)]
    list(executors.execute(jobs, executor, 0, lambda rounds: None, lambda numbers, standing: None))
    assert (len(inline), len(crews)) == ((0, 1) if in_workers else (4, 0))


def test_groups_have_as_many_workers_as_suit_each(monkeypatch, crews):
    """A CNN that leaves no room for another doesn't hold up the others."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(executors, "processes", lambda config: 8 if config.width == 32 else 2)
    wide = replace(cnn(), width=64)
    jobs = [Job(replace(config, seed=seed), None) for config in (cnn(), wide) for seed in range(10)]
    list(executors.execute(jobs, "local", 0, lambda rounds: None, lambda numbers, standing: None))
    assert sorted(count for count, _ in crews) == [2, 8]  # as many as there may be, however few groups there are
    for count, groups in crews:
        assert len(groups) == 10
        assert {jobs[n].config.width for group in groups for n in group} == {32 if count == 8 else 64}


def test_a_gpu_that_is_left_out_stays_out(tmp_path, monkeypatch, caplog):
    """For the groups that have other workers too; of which there are fewer then."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(executors, "processes", lambda config: 4 if config.width == 32 else 2)
    configs = [replace(cnn(seed), width=width) for width in (32, 64) for seed in range(6)]
    jobs = [Job(config, tmp_path / str(number)) for number, config in enumerate(configs)]
    for plan, finished in (({"1": ["broken"]}, 12), ({"0": ["broken"], "1": ["broken"]}, 0)):
        outcomes = ended_on_gpus(jobs, plan, monkeypatch)
        assert sum(isinstance(outcome, RunRecord) for outcome in outcomes.values()) == finished
        first = {jobs[n].config.width for _, numbers in OnGpu.begun[:4] for n in numbers}
        later = [device for device, numbers in OnGpu.begun if not first & {jobs[n].config.width for n in numbers}]
        assert len(first) == 1
        assert set(later) == ({"0"} if finished == 12 else set())
    configs = [replace(cnn(seed), width=64) for seed in range(2)] + [cnn()]  # at last one group, on a GPU that works
    outcomes = ended_on_gpus([Job(config, None) for config in configs], {"0": ["broken"]}, monkeypatch)
    assert all(isinstance(outcome, RunRecord) for outcome in outcomes.values())


def test_a_network_too_large_for_a_gpu_of_its_own_fails_and_the_gpu_goes_on(monkeypatch, caplog):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    jobs = [Job(cnn(seed, workers=2), None) for seed in range(6)]
    outcomes = ended_on_gpus(jobs, {"1": ["well", "full"]}, monkeypatch)
    assert [str(outcome) for outcome in outcomes.values() if not isinstance(outcome, RunRecord)] == [
        "OutOfMemoryError: CUDA out of memory. Tried"
    ]
    assert not [text for text in caplog.messages if "GPU" in text]
    assert Counter(device for device, _ in OnGpu.begun) == {"0": 3, "1": 3}

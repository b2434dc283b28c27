"""Locks of others: who trains there is told in one line."""

import errno
import os
import resource
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import small

from fractal_ifs.config.run import Job
from fractal_ifs.runs import locks
from fractal_ifs.runs.locks import Busy
from fractal_ifs.runs.records import Status
from fractal_ifs.runs.run import Run
from fractal_ifs.training.train import train


@pytest.fixture
def as_another_user(monkeypatch):
    """This process may not open the files of locks, or not write them."""

    def become(readable: bool) -> None:
        open_file = os.open

        def refuse(path, flags, *mode):
            if str(path).endswith(locks.NAME) and (not readable or flags & os.O_RDWR):
                raise PermissionError(13, "Permission denied", str(path))
            return open_file(path, flags, *mode)

        monkeypatch.setattr(locks.os, "open", refuse)
        monkeypatch.setattr(locks.os, "geteuid", lambda: os.getuid() + 1)

    return become


def test_a_lock_of_another_user_that_cannot_be_read(tmp_path, as_another_user):
    (tmp_path / locks.NAME).write_text("")
    as_another_user(readable=False)
    with pytest.raises(Busy, match=r"\.lock: is user \w+'s, who may be at work there; if not, it may be removed"):
        locks.of_directory(tmp_path, "run")


def test_a_lock_of_another_user_who_trains_there(tmp_path, as_another_user):
    lock = locks.of_directory(tmp_path, "run")
    as_another_user(readable=True)
    with pytest.raises(Busy, match=f"process {os.getpid()} on .* trains this run now"):
        locks.of_directory(tmp_path, "run")
    lock.release()


def test_a_run_behind_it_is_busy_and_has_not_failed(tmp_path, as_another_user):
    (tmp_path / locks.NAME).write_text("")
    as_another_user(readable=False)
    [error] = train([Job(small(), tmp_path)], threads=1)
    assert isinstance(error, Busy)
    assert [path.name for path in tmp_path.iterdir()] == [locks.NAME]


def test_a_directory_that_cannot_be_written_is_no_other_users_lock(tmp_path, as_another_user):
    as_another_user(readable=False)
    with pytest.raises(PermissionError):
        locks.of_directory(tmp_path, "run")


def test_a_table_that_another_user_writes(tmp_path, as_another_user):
    """Waited for, and no advice to remove a lock that is held."""
    table = tmp_path / "results.csv"
    lock = locks.of_table(table, 0)
    as_another_user(readable=True)
    with pytest.raises(Busy, match=f"results.csv: process {os.getpid()} on .* is writing it"):
        locks.of_table(table, 0.1)
    lock.release()


@pytest.mark.parametrize("why", ["in a Slurm job", "its driver is gone"])
def test_nobody_waits_longer_for_a_table_than_asked(tmp_path, monkeypatch, why):
    """Training waits for it; a directory is waited for, because its worker may be ending."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.append(now.pop() + seconds))
    monkeypatch.setattr(locks, "time", clock)
    if why == "in a Slurm job":
        monkeypatch.setenv("SLURM_JOB_ID", "1")
    else:
        monkeypatch.setattr(locks, "_alive", lambda _: False)
    table = tmp_path / "t.csv"
    for take, most in ((lambda: locks.of_table(table, 5), 5), (lambda: directory(tmp_path), locks.PATIENCE)):
        held, begun = take(), now[0]
        with pytest.raises(Busy):
            take()
        assert now[0] - begun == pytest.approx(most, abs=0.2)
        held.release()


def directory(path):
    return locks.of_directory(path, "run")


def test_a_full_disk_keeps_nobody_out(tmp_path, monkeypatch):
    """Who has the lock can't be written, and the lock is held and released all the same."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as there:
        there.setattr(locks.os, "ftruncate", full)
        lock = locks.of_table(tmp_path / "runs.csv", 0)
        assert lock.held
        with pytest.raises(Busy, match="another process is writing it"):
            locks.of_table(tmp_path / "runs.csv", 0)
        lock.release()
    assert locks.of_table(tmp_path / "runs.csv", 0).held


@pytest.mark.parametrize(
    ("now", "limit", "asked", "most"),
    [
        (1024, 1 << 20, locks.FILES, locks.FILES // 2),
        (1024, 4096, 4096, 2048),
        (64, 64, None, 32),
        (1, 1, None, 1),
        (1024, resource.RLIM_INFINITY, locks.FILES, locks.FILES // 2),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, locks.FILES // 2),
        (1 << 20, 1 << 20, None, 1 << 19),
    ],
)
def test_how_many_runs_may_have_their_files_open(monkeypatch, now, limit, asked, most):
    given = []
    monkeypatch.setattr(locks.resource, "getrlimit", lambda _: (now, limit))
    monkeypatch.setattr(locks.resource, "setrlimit", lambda _, values: given.append(values))
    assert locks.runs_at_a_time() == most
    assert given == ([] if asked is None else [(asked, limit)])


def test_no_more_runs_train_at_a_time_than_may(tmp_path, monkeypatch):
    jobs = [Job(small(seed=seed), tmp_path / str(seed)) for seed in range(5)]
    for most in (2, 99):
        monkeypatch.setattr(locks, "runs_at_a_time", lambda most=most: most)
        seen: list[int] = []
        again = [job._replace(config=replace(job.config, overwrite=True)) for job in jobs]
        outcomes = train(again, threads=1, report=lambda rounds, seen=seen: seen.append(len(rounds.active)))
        assert [outcome.status for outcome in outcomes if isinstance(outcome, Run)] == [Status.FINISHED] * 5
        assert max(seen) == min(most, 5)

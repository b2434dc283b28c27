"""Locks of others: who trains there is told in one line."""

import os

import pytest
from conftest import small

from fractal_ifs.config.run import Job
from fractal_ifs.runs import locks
from fractal_ifs.runs.locks import Busy, Lock
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
    with pytest.raises(Busy, match=r"\.lock: is user \w+'s, who may be training there; if not, it may be removed"):
        Lock(tmp_path, "run")


def test_a_lock_of_another_user_who_trains_there(tmp_path, as_another_user):
    lock = Lock(tmp_path, "run")
    as_another_user(readable=True)
    with pytest.raises(Busy, match=f"process {os.getpid()} on .* trains this run now"):
        Lock(tmp_path, "run")
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
        Lock(tmp_path, "run")

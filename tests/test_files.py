"""Files are written whole or not at all."""

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from fractal_ifs import files


def test_many_threads_write_one_path(tmp_path):
    """None fails, every reader sees one writer's whole content, and no temporary file is left."""
    path = tmp_path / "result.json"
    contents = [bytes([65 + i]) * 20_000 for i in range(8)]

    def write_often(content):
        for _ in range(50):
            files.write(path, content)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_often, contents))
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_whole(tmp_path, monkeypatch, step):
    path = tmp_path / "result.json"
    files.write(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        files.write(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EINVAL])
@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_directory_that_cannot_be_synced_may_be_written(tmp_path, monkeypatch, call, number):
    """Such as one of mode 300, which may not be read."""
    path, usual = tmp_path / "result.json", getattr(os, call)

    def refuse(what, *more):
        if (call == "open" and more[0] & os.O_DIRECTORY) or (call == "fsync" and stat.S_ISDIR(os.fstat(what).st_mode)):
            raise OSError(number, os.strerror(number))
        return usual(what, *more)

    monkeypatch.setattr(files.os, call, refuse)
    files.write(path, b"new")
    assert path.read_bytes() == b"new"
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        files.write(path, b"newer")
    assert path.read_bytes() == b"newer"


def test_a_written_file_may_be_read_by_whoever_the_umask_lets(tmp_path):
    path = tmp_path / "result.json"
    before = os.umask(0o022)
    try:
        files.write(path, b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_disk_is_waited_for_once_for_a_checkpoint_and_at_the_end_for_the_record(tmp_path, monkeypatch):
    """The file before its rename, and the directory after the last: else a loss of power could empty or lose them."""
    from conftest import small

    from fractal_ifs.config.run import Job
    from fractal_ifs.training import rounds
    from fractal_ifs.training.train import train

    calls = []

    def fsync(descriptor, fsync=os.fsync):
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        calls.append(("sync", name if name == tmp_path.name else name.split(".")[1]))
        fsync(descriptor)

    def replace(old, new, replace=os.replace):
        calls.append(("rename", os.path.basename(new).rpartition(".")[0]))
        replace(old, new)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files.os, "replace", replace)
    monkeypatch.setattr(rounds, "CHECKPOINT_SECONDS", -1.0)  # after each evaluation
    train([Job(small(steps=60, eval_every=20), tmp_path)], threads=1)
    begin = [("rename", "begun")]
    checkpoint = [
        ("sync", "checkpoint"),
        ("rename", "checkpoint.previous"),
        ("rename", "checkpoint"),
        ("rename", "history"),
    ]
    first = [call for call in checkpoint if call != ("rename", "checkpoint.previous")]
    end = [("sync", "result"), ("rename", "result"), ("sync", tmp_path.name)]
    assert calls == [*begin, *first, *checkpoint, *checkpoint, *end]


def test_only_regular_files_of_a_sensible_size_are_read(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        files.read(path)
    path.write_bytes(b"12345")
    assert files.read(path, 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes, at most 4 are expected"):
        files.read(path, 4)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "good link").symlink_to("file")
    assert files.read(tmp_path / "good link") == b"12345"
    for name, reason in (("pipe", "not a file"), ("", "not a file"), ("link", "a link to nothing")):
        with pytest.raises(OSError, match=reason):
            files.read(tmp_path / name)

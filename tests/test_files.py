"""Files are written whole or not at all."""

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


def test_a_written_file_may_be_read_by_whoever_the_umask_lets(tmp_path):
    path = tmp_path / "result.json"
    before = os.umask(0o022)
    try:
        files.write(path, b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

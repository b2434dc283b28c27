"""What a process finds of its machine: cores, as its control groups grant them."""

import math
from types import SimpleNamespace

import pytest
import torch

from fractal_ifs.config import machine


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),  # in a container of its own: version 2
        ("0::/", {"cpu.max": "max 100000"}, math.inf),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),  # the limit of a group above
        ("0::/a/b", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "50000 100000"}, 0.5),
        ("0::/outside/7", {"cpu.max": "300000 100000"}, 3),  # a path of the host's, which isn't here
        ("5:cpu,cpuacct:/\n1:name=systemd:/", {"cpu,cpuacct/cpu.cfs_quota_us": "250000"}, 2.5),  # version 1
        ("5:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_quota_us": "100000"}, 1),
        ("5:cpuset:/a", {"cpuset/a/cpu.max": "100000 100000"}, math.inf),
        ("0::/", {"cpu.max": "torn"}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_the_quota_of_a_container(tmp_path, groups, files, expected):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.with_name("cpu.cfs_period_us").write_text("100000")
    assert machine._quota(tmp_path) == expected


def test_a_system_without_control_groups(tmp_path):
    assert machine._quota(tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "expected"), [(1.5, 2), (0.1, 1), (64, 8), (math.inf, 8)])
def test_cores_are_those_of_all_limits(monkeypatch, quota, expected):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(machine, "_quota", lambda: quota)
    assert machine.cores() == expected
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert machine.cores() == 1


@pytest.mark.parametrize(("there", "expected"), [([80, 40, 80], 40), ([], 0), ([80, None], 0)])
def test_the_memory_of_the_smallest_gpu(there, expected, monkeypatch):
    """0 where there is none, and where one doesn't answer."""

    def properties(number):
        if there[number] is None:
            raise RuntimeError("CUDA error: no device")
        return SimpleNamespace(total_memory=there[number])

    machine.gpu_memory.cache_clear()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(there))
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    assert machine.gpu_memory() == expected
    machine.gpu_memory.cache_clear()

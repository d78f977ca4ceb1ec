"""How much memory and how many files the host leaves to worker processes."""

from __future__ import annotations

import sys

import pytest

from precisionbench.system import memory
from precisionbench.system.open_files import descriptors_left

GIB = 1 << 30


@pytest.fixture
def host(tmp_path):
    def make(**files: str):
        for name, text in files.items():
            file = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return make


def test_free_memory_is_limited_by_the_container(host):
    root = host(
        proc__meminfo="MemTotal: 16 kB\nMemAvailable:    1024 kB\n",
        sys__fs__cgroup__memory_dot_max="600000\n",
        sys__fs__cgroup__memory_dot_current="100000\n",
    )
    assert memory.free_host_bytes(root) == 500_000


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        ({"proc__meminfo": "nothing known\n"}, None),
        ({"proc__meminfo": "MemAvailable: 1 kB\n"}, 1024),
        (
            {
                "sys__fs__cgroup__memory_dot_max": "max\n",
                "sys__fs__cgroup__memory_dot_current": "5\n",
            },
            None,
        ),
    ],
)
def test_free_memory_is_none_where_the_system_does_not_say(host, files, free):
    assert memory.free_host_bytes(host(**files)) == free


V1 = "sys__fs__cgroup__memory"
V1_FILES = {
    f"{V1}__memory_dot_limit_in_bytes": "600000\n",
    f"{V1}__memory_dot_usage_in_bytes": "300000\n",
    f"{V1}__memory_dot_stat": "inactive_file 1\ntotal_inactive_file 50000\n",
}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (V1_FILES, 350_000),
        ({**V1_FILES, f"{V1}__memory_dot_limit_in_bytes": "9223372036854771712\n"}, None),
        (  # a group around this one has less left
            {
                **V1_FILES,
                "proc__self__cgroup": "9:cpu:/x\n4:memory,hugetlb:/jobs/1\n",
                f"{V1}__jobs__memory_dot_limit_in_bytes": "200000\n",
                f"{V1}__jobs__memory_dot_usage_in_bytes": "90000\n",
                f"{V1}__jobs__1__memory_dot_limit_in_bytes": "150000\n",
                f"{V1}__jobs__1__memory_dot_usage_in_bytes": "20000\n",
            },
            110_000,
        ),
        (  # only memory.high is set
            {
                "proc__self__cgroup": "0::/jobs/1\n",
                "sys__fs__cgroup__jobs__1__memory_dot_max": "max\n",
                "sys__fs__cgroup__jobs__1__memory_dot_high": "5000\n",
                "sys__fs__cgroup__jobs__1__memory_dot_current": "4000\n",
            },
            1000,
        ),
        ({**V1_FILES, "proc__self__cgroup": "4:memory:/of/the/host\n"}, 350_000),
        ({"proc__self__cgroup": "nothing known\n"}, None),
    ],
    ids=["v1", "no limit", "ancestor", "v2 high", "path of the host", "unknown"],
)
def test_control_groups_of_both_versions_limit_free_memory(host, files, free):
    assert memory.free_host_bytes(host(**files)) == free


def test_workers_that_fit_depend_on_what_each_and_all_of_them_take(monkeypatch):
    monkeypatch.setattr(memory, "free_host_bytes", lambda: 10 * GIB)
    assert memory.workers_that_fit(GIB) == 8
    assert memory.workers_that_fit(GIB, 4 * GIB) == 4
    assert memory.workers_that_fit(GIB, 9 * GIB) == 0
    monkeypatch.setattr(memory, "free_host_bytes", lambda: None)
    assert memory.workers_that_fit(GIB) is None


def test_open_files_are_counted(tmp_path):
    before = descriptors_left()
    with (tmp_path / "file").open("w"):
        assert sys.platform != "linux" or descriptors_left() == before - 1
    assert descriptors_left(tmp_path / "missing") is None

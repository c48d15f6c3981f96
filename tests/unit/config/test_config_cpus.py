"""CPUs that this process may use: its affinity mask, and the quotas of the control groups around it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stickygw.config.cpus import Workers, available_cpus, cpus_within, excess_workers, worker_count

MANY = 64


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000\n", MANY),
        ("-1 100000", MANY),
        ("", MANY),
        ("max", MANY),
        ("0 100000", MANY),
        ("100000 0", MANY),
        ("nonsense here", MANY),
        ("200000 100000\n", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("100001 100000", 2),
        ("6400001 100000", MANY),
        ("50000\n 25000\n", 2),
    ],
)
def test_a_quota_is_rounded_up_and_what_is_none_limits_nothing(quota: str, cpus: int) -> None:
    assert cpus_within(MANY, [quota]) == cpus


def test_the_tightest_limit_counts_and_there_is_always_one_cpu() -> None:
    assert cpus_within(8, ["max 100000", "400000 100000", "300000 100000"]) == 3
    assert cpus_within(2, ["400000 100000"]) == 2
    assert cpus_within(0, []) == 1


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for fake /proc and control groups, on a machine with many CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(MANY)), raising=False)
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def cpus_on(machine: Path) -> int:
    return available_cpus(proc=machine / "proc", cgroups=machine / "cgroup")


def test_version_2_counts_the_own_group(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/kubepods/pod1\n")
    write(machine / "cgroup/kubepods/pod1/cpu.max", "250000 100000\n")
    assert cpus_on(machine) == 3


def test_version_2_counts_the_groups_around_it(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/kubepods/pod1\n")
    write(machine / "cgroup/kubepods/pod1/cpu.max", "max 100000\n")
    write(machine / "cgroup/kubepods/cpu.max", "400000 100000\n")
    assert cpus_on(machine) == 4


def test_version_2_in_a_container_is_its_own_root(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/\n")
    write(machine / "cgroup/cpu.max", "100000 100000\n")
    assert cpus_on(machine) == 1


@pytest.mark.parametrize("folder", ["docker/abc", "."])
def test_version_1_counts_the_group_or_where_it_is_mounted_in_a_container(machine: Path, folder: str) -> None:
    write(machine / "proc/self/cgroup", "3:cpuset:/\n2:cpu,cpuacct:/docker/abc\n0::/\n")
    write(machine / "cgroup/cpu" / folder / "cpu.cfs_quota_us", "150000\n")
    write(machine / "cgroup/cpu" / folder / "cpu.cfs_period_us", "100000\n")
    assert cpus_on(machine) == 2


def test_version_1_without_a_quota_says_minus_one(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "2:cpuacct,cpu:/\n")
    write(machine / "cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(machine / "cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert cpus_on(machine) == MANY


def test_without_control_groups_the_affinity_mask_counts(machine: Path) -> None:
    assert cpus_on(machine) == MANY


def test_what_this_machine_says_is_within_the_affinity_mask() -> None:
    assert 1 <= available_cpus() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("workers", "cpus", "count"),
    [("auto", 4, 4), ("auto-1", 4, 3), ("auto-1", 2, 1), ("auto-1", 1, 1), ("auto", 1, 1), (3, 1, 3), (1, 4, 1)],
)
def test_the_setting_is_a_number_or_what_there_is_or_one_fewer_but_never_none(
    workers: Workers, cpus: int, count: int
) -> None:
    assert worker_count(workers, cpus=cpus) == count


@pytest.mark.parametrize(("workers", "cpus"), [("auto", 1), ("auto-1", 1), (1, 1), (4, 4), (3, 4)])
def test_as_many_workers_as_cpus_are_no_excess(workers: Workers, cpus: int) -> None:
    assert excess_workers(workers, cpus=cpus) is None


def test_more_workers_than_cpus_are_told(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/\n")
    write(machine / "cgroup/cpu.max", "300000 100000\n")
    assert excess_workers(4, cpus=cpus_on(machine)) == (
        "workers: 4, but affinity mask and CPU quota leave this process 3: they will take turns"
    )


def test_without_a_number_the_cpus_of_this_machine_count() -> None:
    assert worker_count("auto") == available_cpus()
    assert worker_count("auto-1") == max(1, available_cpus() - 1)
    assert excess_workers(available_cpus()) is None
    assert excess_workers(available_cpus() + 1) is not None

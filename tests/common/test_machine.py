"""What this machine has: its GPU as NVIDIA's driver tells of it, a driver of C in the real one's place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from user_errors import assert_sentence, raises_user_error

from maskring.common import machine
from maskring.common.errors import UnavailableError

DRIVER = """
#include <stdlib.h>
static int refuses(const char *call) {
    const char *asked = getenv("REFUSED");
    return asked && !__builtin_strcmp(asked, call);
}
int cuInit(unsigned flags) { return refuses("cuInit") ? 803 : 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return refuses("cuDeviceGet") ? 101 : 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
    return refuses("cuDeviceGetAttribute") || device != 7 ? 999 : 0;
}
int cuDriverGetVersion(int *version) {
    *version = 13000;
    return refuses("cuDriverGetVersion") ? 1 : 0;
}
int cuGetErrorString(int error, const char **text) {
    *text = error == 803 ? "system has unsupported display driver / cuda driver combination" : 0;
    return *text ? 0 : 1;
}
"""

ASK = """
from maskring.common.errors import UnavailableError
from maskring.common.machine import compute_capability
try:
    print(compute_capability())
except UnavailableError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the loader finds a driver, without a name for compilers beside it."""
    folder = tmp_path_factory.mktemp("driver")
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / "libcuda.so.1")]
    subprocess.run(command, input=DRIVER, text=True, check=True)
    return folder


def python(driver: Path, *arguments: str, **environment: str) -> str:
    """What a Python beside that driver prints."""
    command = [sys.executable, *arguments]
    surroundings = os.environ | {"LD_LIBRARY_PATH": str(driver)} | environment
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True).stdout


def test_the_driver_is_found_as_programs_find_it(driver: Path) -> None:
    assert python(driver, "-c", ASK) == "sm87\n"


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("cuInit", "system has unsupported display driver"),
        ("cuDeviceGet", "error 101"),
        ("cuDeviceGetAttribute", "error 999"),
    ],
)
def test_what_the_driver_says_is_passed_on(driver: Path, call: str, reason: str) -> None:
    message = python(driver, "-c", ASK, REFUSED=call).strip()
    assert_sentence(message, (reason, "GPU 0", "install NVIDIA's driver"))


def test_doctor_names_the_gpu(driver: Path) -> None:
    command = "-m", "maskring", "doctor"
    assert "a GPU with compute capability sm87" in python(driver, *command, COLUMNS="200")
    assert "GPU 0 (error 101)" in python(driver, *command, COLUMNS="200", REFUSED="cuDeviceGet")


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DRIVER", "libcuda-that-is-nowhere.so.1")
    with raises_user_error(UnavailableError, ("no NVIDIA driver", "install NVIDIA's driver")):
        machine.cuda_driver()


QUOTAS = {
    "docker run --cpus 1.5": ("0::/", {"cpu.max": "150000 100000"}, 2),
    "a pod below the limit of its parent": (
        "0::/kubepods/pod/box",
        {
            "cpu.max": "max 100000",
            "kubepods/pod/box/cpu.max": "400000 100000",
            "kubepods/cpu.max": "200000 100000",
        },
        2,
    ),
    "no limit": ("0::/user.slice", {"user.slice/cpu.max": "max 100000"}, None),
    "a hundredth of a core": ("0::/", {"cpu.max": "1000 100000"}, 1),
    "a container that sees its host's path": ("0::/../../host", {"cpu.max": "300000 100000"}, 3),
    "version 1": (
        "5:cpu,cpuacct:/box",
        {"cpu,cpuacct/box/cpu.cfs_quota_us": "250000", "cpu,cpuacct/box/cpu.cfs_period_us": "100000"},
        3,
    ),
    "version 1 without a limit": (
        "5:cpu,cpuacct:/",
        {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
        None,
    ),
}


@pytest.mark.parametrize(("group", "files", "cores"), QUOTAS.values(), ids=QUOTAS)
def test_the_quota_of_a_container(
    group: str, files: dict[str, str], cores: int | None, tmp_path: Path
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"3:cpuset:/\n{group}\n")
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert machine.cpu_quota(tmp_path) == cores


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert machine.cpu_quota(tmp_path) is None


def test_threads_follow_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    for quota, cores in ((3, 3), (None, 64), (100, 64)):
        monkeypatch.setattr(machine, "cpu_quota", lambda quota=quota: quota)
        assert machine.threads_to_use(0) == cores and machine.threads_to_use(7) == 7

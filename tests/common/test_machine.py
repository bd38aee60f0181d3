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

"""What tests of the operator share: one torch thread, and the plugin library built with NVIDIA's headers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from plugin_builds import ARCHITECTURE, configured, lines_about, run

from maskring.plugins import library


@pytest.fixture(autouse=True, scope="package")
def one_torch_thread() -> Iterator[None]:
    """Cases are tiny. Also, the first exp that MKL computes on several threads is sometimes exact to 1e-9 only, which
    is too little for the comparisons in double precision.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tensorrt_root() -> Path:
    named = os.environ.get("TENSORRT_ROOT")
    if not named:
        pytest.skip(
            "no TensorRT headers: set TENSORRT_ROOT to the folder that holds include/NvInferRuntime.h"
        )
    return Path(named).resolve()


@pytest.fixture(scope="session")
def built_library(tensorrt_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin library with the real kernels, for one architecture."""
    build = tmp_path_factory.mktemp("cmake")
    output = configured(
        build, "all", f"-DMASKRING_CUDA_ARCHITECTURES={ARCHITECTURE}", tensorrt=str(tensorrt_root)
    )
    for line in lines_about("CUDA kernels", output):
        if "skipped" in line:
            pytest.skip(line)
    done = run("cmake", "--build", build, "--target", "maskring_plugins")
    assert done.returncode == 0, done.stderr
    return build / "plugins" / library.LIBRARY_NAME

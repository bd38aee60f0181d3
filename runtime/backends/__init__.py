"""Backends execute step graphs. :func:`open_backend` picks one by the suffix of the model's file."""

from __future__ import annotations

from pathlib import Path

from ...common.errors import ModelError
from ...common.types import Device, Kernel
from ..model.engine_file import ENGINE_SUFFIX
from .base import Backend as Backend
from .base import PrefetchingBackend as PrefetchingBackend
from .device_frame import DeviceFrame as DeviceFrame


def open_backend(
    model: Path, *, kernel: Kernel = "native", threads: int = 0, device: Device = "cpu"
) -> Backend:
    """Open an exported model with the backend for its suffix.

    Args:
        model: an exported ``.onnx``, or an ``.engine`` that was built from one.
        kernel: for an ``.onnx``: ``native`` reads memory with the CPU kernel, ``function`` with standard ONNX
            operators alone.
        threads: CPU threads for an ``.onnx``, 0 for all that this process may use.
        device: where an ``.onnx`` runs; ``cuda`` is the first NVIDIA GPU. Engines always run there.

    Raises:
        ModelError: when the file is missing, damaged or not an exported model, or ``kernel`` is given for a GPU.
        UnavailableError: when nothing installed here can execute it.
    """
    if model.suffix == ENGINE_SUFFIX:
        if kernel != "native":
            raise ModelError(
                f"the engine {model} has its memory read built in", f"leave --kernel {kernel} out"
            )
        from .trt.backend import TensorRTBackend

        return TensorRTBackend(model)
    if model.suffix in (".safetensors", ".pth", ".pt"):
        raise ModelError(
            f"{model} is a checkpoint, and tracking needs an exported model",
            f"export it first: maskring export {model} --out {model.with_suffix('.onnx')}",
        )
    if model.suffix != ".onnx":
        raise ModelError(
            f"{model} does not end in .onnx or .engine", "give an exported model or an engine built from one"
        )
    if device == "cuda":
        if kernel != "native":
            raise ModelError(
                f"{model} always reads memory with maskring's kernel on a GPU",
                f"leave --kernel {kernel} or --device cuda out",
            )
        from .onnxrt.cuda_backend import OnnxRuntimeCudaBackend

        return OnnxRuntimeCudaBackend(model)
    from .onnxrt.backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(model, kernel=kernel, threads=threads)

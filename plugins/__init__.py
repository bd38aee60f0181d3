"""Windowed memory affinity in all its implementations, and its libraries for TensorRT and onnxruntime."""

from .library import library_path, load
from .operator_library import onnxruntime_library

__all__ = ["library_path", "load", "onnxruntime_library"]

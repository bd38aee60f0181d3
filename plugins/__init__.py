"""Windowed memory affinity in all its implementations, and the TensorRT plugin library."""

from .library import library_path, load

__all__ = ["library_path", "load"]

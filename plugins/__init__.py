"""Windowed memory affinity, in every implementation; the ground floor that all other rooms stand on."""

from .library import library_path, load

__all__ = ["library_path", "load"]

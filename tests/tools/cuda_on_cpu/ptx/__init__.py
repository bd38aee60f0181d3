"""Executes the PTX that nvcc emitted, without a GPU, and finds what a GPU would let pass. See README.md."""

from .device import Device
from .errors import PtxError
from .memory import Buffer
from .parser import Kernel, Module, parse

__all__ = ["Buffer", "Device", "Kernel", "Module", "PtxError", "parse"]

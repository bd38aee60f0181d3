"""Executes PTX from nvcc without a GPU and reports errors that a GPU would not. See README.md."""

from .device import Device
from .errors import PtxError
from .memory import Buffer
from .parser import parse
from .program import Kernel, Module

__all__ = ["Buffer", "Device", "Kernel", "Module", "PtxError", "parse"]

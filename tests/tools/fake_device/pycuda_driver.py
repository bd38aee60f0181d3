"""``pycuda.driver`` on the fake GPU: names, arguments, errors and context rules of pycuda 2026.1."""

from __future__ import annotations

import builtins
import threading
import weakref
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from .gpu import POISON, FakeGpu, FakeStream, IllegalAddressError


class Error(Exception):
    """Base of pycuda's errors."""


class MemoryError(Error):
    """The GPU or the system has no memory left."""


class LogicError(Error):
    """An invalid call."""


class LaunchError(Error):
    """Work failed on the GPU; its context is lost."""


def pycuda_driver(gpu: FakeGpu) -> ModuleType:
    """The module."""
    module = ModuleType("pycuda.driver")
    for kind in (Error, MemoryError, LogicError, LaunchError):
        setattr(module, kind.__name__, kind)
    module.event_flags = SimpleNamespace(DISABLE_TIMING=2)  # type: ignore[attr-defined]
    for part in (_contexts, _work, _memory):
        for name, value in part(gpu).items():
            setattr(module, name, value)
    return module


def _stack(gpu: FakeGpu) -> list[Any]:
    """pycuda's own stack of contexts in this thread."""
    if not hasattr(gpu.current, "stack"):
        gpu.current.stack = []
    stack: list[Any] = gpu.current.stack
    return stack


def _call(gpu: FakeGpu, name: str, kind: type[Error] = LogicError) -> None:
    """Count the call, and raise when a failure was requested or the context is lost."""
    failing = gpu.called(name)
    if gpu.broken:
        raise LaunchError(f"{name} failed: an illegal memory access was encountered")
    if failing:
        if kind is LaunchError:
            gpu.lose_context()
        words = {MemoryError: "out of memory", LaunchError: "unspecified launch failure"}
        raise kind(f"{name} failed: {words.get(kind, 'invalid argument')}")


def _need_context(gpu: FakeGpu, name: str) -> None:
    if not _stack(gpu) or not gpu.driver_stack:
        raise LogicError(f"{name} failed: invalid device context - no currently active context?")


def _contexts(gpu: FakeGpu) -> dict[str, Any]:
    class Context:
        """The primary context, with pycuda's own record of the driver's stack."""

        def __init__(self) -> None:
            self.thread = threading.get_ident()
            self.valid = True
            gpu.alive["context"] += 1

        def push(self) -> None:
            _call(gpu, "Context.push")
            if _stack(gpu):
                gpu.driver_stack.pop()
            gpu.driver_stack.append("primary")
            _stack(gpu).append(self)

        @staticmethod
        def pop() -> None:
            gpu.called("Context.pop")
            if not _stack(gpu):
                raise LogicError("context::pop failed: cannot pop non-current context")
            gpu.driver_stack.pop()
            _stack(gpu).pop()
            if _stack(gpu):
                gpu.driver_stack.append("primary")

        def detach(self) -> None:
            assert self.valid, "detached twice"
            gpu.called("Context.detach")
            active = _stack(gpu)[-1:] == [self]
            if not active and self.thread != threading.get_ident():
                return  # pycuda cannot, and says nothing
            if not active and not gpu.broken:
                gpu.driver_stack.append("primary")  # pycuda expects the release to take it off, in vain
            self.valid = False
            gpu.alive["context"] -= 1
            _stack(gpu)[:] = [context for context in _stack(gpu) if context.valid]
            if active and _stack(gpu):
                gpu.driver_stack.append("primary")

    class Device:
        def __init__(self, ordinal: int) -> None:
            _call(gpu, "Device")

        @staticmethod
        def count() -> int:
            return 1

        def name(self) -> str:
            _call(gpu, "Device.name")
            return "fake GPU"

        def compute_capability(self) -> tuple[int, int]:
            _call(gpu, "Device.compute_capability")
            return gpu.capability

        def retain_primary_context(self) -> Context:
            _call(gpu, "Device.retain_primary_context")
            return Context()

    def init(flags: int = 0) -> None:
        _call(gpu, "init")

    return {"Context": Context, "Device": Device, "init": init}


def _work(gpu: FakeGpu) -> dict[str, Any]:
    def run(drain: Any, name: str) -> None:
        _need_context(gpu, name)
        if gpu.spoils_captures():
            raise LogicError(f"{name} failed: operation not permitted when stream is capturing")
        _call(gpu, name, LaunchError)
        try:
            drain()
        except IllegalAddressError as error:
            gpu.lose_context()
            raise LaunchError(f"{name} failed: an illegal memory access: {error}") from error

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            _need_context(gpu, "Stream")
            _call(gpu, "Stream")
            self.fake = FakeStream(gpu.handle())
            gpu.streams[self.fake.handle] = self.fake
            gpu.alive["stream"] += 1

        @property
        def handle(self) -> int:
            return self.fake.handle

        def synchronize(self) -> None:
            run(self.fake.drain, "Stream.synchronize")

        def wait_for_event(self, event: Event) -> None:
            _call(gpu, "Stream.wait_for_event")
            recorded, serial = event.stream, event.recorded
            assert recorded is not None, "waits for an event that was never recorded"

            def wait() -> None:
                while event.reached < serial:
                    recorded.queue.popleft()()

            gpu.give(self.fake, wait)

        def __del__(self) -> None:
            if hasattr(self, "fake"):
                gpu.called("Stream.__del__")
                del gpu.streams[self.fake.handle]
                gpu.alive["stream"] -= 1

    class Event:
        def __init__(self, flags: int = 0) -> None:
            _need_context(gpu, "Event")
            _call(gpu, "Event")
            self.stream: FakeStream | None = None
            self.recorded = self.reached = 0
            gpu.alive["event"] += 1

        def record(self, stream: Stream | None = None) -> Event:
            _call(gpu, "Event.record")
            assert stream is not None, "records in the legacy default stream"
            self.stream = stream.fake
            self.recorded += 1
            serial = self.recorded
            gpu.give(stream.fake, lambda: setattr(self, "reached", serial))
            return self

        def __del__(self) -> None:
            if hasattr(self, "reached"):
                gpu.alive["event"] -= 1

    return {"Stream": Stream, "Event": Event}


def _memory(gpu: FakeGpu) -> dict[str, Any]:
    class DeviceAllocation:
        def __init__(self, address: int) -> None:
            self._address, self._valid = address, True
            gpu.alive["allocation"] += 1

        def __int__(self) -> int:
            return self._address

        __index__ = __int__

        def free(self) -> None:
            assert self._valid, "freed twice"
            self._valid = False
            gpu.alive["allocation"] -= 1
            gpu.free(self._address)
            _call(gpu, "DeviceAllocation.free")
            _need_context(gpu, "DeviceAllocation.free")

    def mem_alloc(bytes: int) -> DeviceAllocation:
        _need_context(gpu, "mem_alloc")
        if gpu.spoils_captures():
            raise LogicError("mem_alloc failed: operation not permitted when stream is capturing")
        _call(gpu, "mem_alloc", MemoryError)
        address = gpu.allocate(bytes)
        if address is None:
            raise MemoryError("mem_alloc failed: out of memory")
        return DeviceAllocation(address)

    def mem_get_info() -> tuple[int, int]:
        _call(gpu, "mem_get_info")
        return gpu.memory - gpu.used, gpu.memory

    def copied(name: str, host: Any, stream: Any) -> Any:
        _call(gpu, name)
        _need_context(gpu, name)
        assert stream is not None, "copies in the legacy default stream"
        assert host.flags.c_contiguous
        gpu.pageable += not gpu.is_pinned(host)
        return host.reshape(-1).view(np.uint8)

    def memcpy_htod_async(dest: int, src: Any, stream: Any = None) -> None:
        content, nbytes = copied("memcpy_htod_async", src, stream), src.nbytes
        if not gpu.is_pinned(src):
            content = content.copy() if gpu.stages else None
        lives = weakref.ref(src)  # where nothing was staged, that it lives on is its owner's care

        def copy() -> None:
            array = lives() if content is None else content
            gpu.memory_at(dest, nbytes)[:] = POISON if array is None else array.reshape(-1).view(np.uint8)

        gpu.give(stream.fake, copy)

    def memcpy_dtoh_async(dest: Any, src: int, stream: Any = None) -> None:
        target = copied("memcpy_dtoh_async", dest, stream)

        def copy() -> None:
            target[:] = gpu.memory_at(src, target.nbytes)

        gpu.give(stream.fake, copy)

    def memcpy_dtod_async(dest: int, src: int, size: int, stream: Any = None) -> None:
        _call(gpu, "memcpy_dtod_async")

        def copy() -> None:
            gpu.memory_at(dest, size)[:] = gpu.memory_at(src, size)

        gpu.give(stream.fake, copy)

    def memset_d8_async(dest: int, data: int, size: int, stream: Any = None) -> None:
        _call(gpu, "memset_d8_async")

        def fill() -> None:
            gpu.memory_at(dest, size)[:] = data

        gpu.give(stream.fake, fill)

    names = (
        DeviceAllocation,
        mem_alloc,
        mem_get_info,
        memcpy_htod_async,
        memcpy_dtoh_async,
        memcpy_dtod_async,
        memset_d8_async,
    )
    return {item.__name__: item for item in names}


assert builtins.MemoryError is not MemoryError

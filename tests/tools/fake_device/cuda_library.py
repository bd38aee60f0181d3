"""Driver calls that maskring makes through ctypes instead of pycuda."""

from __future__ import annotations

import ctypes
from typing import Any

from .gpu import FakeGpu, IllegalAddressError, Work

SUCCESS, INVALID_VALUE, CAPTURE_INVALIDATED, LAUNCH_FAILED = 0, 1, 901, 719
WORDS = {
    INVALID_VALUE: b"invalid argument",
    CAPTURE_INVALIDATED: b"operation failed due to a previous error during capture",
    LAUNCH_FAILED: b"unspecified launch failure",
}


class CudaLibrary:
    """``libcuda``: handles are numbers, ``byref`` arguments are written to."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self._graphs: dict[int, list[Work]] = {}
        self._executables: dict[int, list[Work]] = {}
        self._events: dict[int, Any] = {}

    def _refuses(self, name: str) -> int:
        failing = self._gpu.called(name)
        return LAUNCH_FAILED if self._gpu.broken else INVALID_VALUE if failing else SUCCESS

    def cuGetErrorString(self, error: int, text: Any) -> int:
        text._obj.value = WORDS.get(error)
        return SUCCESS if error in WORDS else INVALID_VALUE

    def cuCtxPopCurrent_v2(self, context: Any) -> int:
        self._gpu.called("cuCtxPopCurrent_v2")
        self._gpu.driver_stack.pop()
        return SUCCESS

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        if code := self._refuses("cuDeviceGet"):
            return code
        device._obj.value = ordinal
        return SUCCESS

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        if code := self._refuses("cuDeviceGetAttribute"):
            return code
        assert attribute == 99
        value._obj.value = int(self._gpu.locks_pages)
        return SUCCESS

    def cuMemHostRegister_v2(self, pointer: Any, nbytes: Any, flags: int) -> int:
        if code := self._refuses("cuMemHostRegister_v2"):
            return code
        assert flags == 0 and self._gpu.driver_stack
        self._gpu.pin(pointer.value, nbytes.value)
        return SUCCESS

    def cuMemHostUnregister(self, pointer: Any) -> int:
        self._gpu.called("cuMemHostUnregister")
        self._gpu.unpin(pointer.value)
        return SUCCESS

    def cuStreamBeginCapture_v2(self, stream: ctypes.c_void_p, mode: int) -> int:
        if code := self._refuses("cuStreamBeginCapture_v2"):
            return code
        fake = self._gpu.streams[stream.value or 0]
        assert fake.captured is None and mode == 1
        fake.captured, fake.capture_is_valid = [], True
        return SUCCESS

    def cuStreamEndCapture(self, stream: ctypes.c_void_p, graph: Any) -> int:
        fake = self._gpu.streams[stream.value or 0]
        work, fake.captured = fake.captured, None
        assert work is not None
        if code := self._refuses("cuStreamEndCapture"):
            return code
        if not fake.capture_is_valid:
            return CAPTURE_INVALIDATED
        graph._obj.value = self._gpu.handle()
        self._graphs[graph._obj.value] = work
        self._gpu.alive["graph template"] += 1
        return SUCCESS

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> int:
        if code := self._refuses("cuGraphInstantiateWithFlags"):
            return code
        executable._obj.value = self._gpu.handle()
        self._executables[executable._obj.value] = self._graphs[graph.value]
        self._gpu.alive["graph"] += 1
        return SUCCESS

    def cuGraphDestroy(self, graph: Any) -> int:
        del self._graphs[graph.value]
        self._gpu.alive["graph template"] -= 1
        return SUCCESS

    def cuGraphLaunch(self, executable: Any, stream: Any) -> int:
        if code := self._refuses("cuGraphLaunch"):
            return code
        work = self._executables[executable.value]

        def replay() -> None:
            for item in work:
                item()

        self._gpu.give(self._gpu.streams[stream.value], replay)
        return SUCCESS

    def cuGraphExecDestroy(self, executable: Any) -> int:
        self._gpu.called("cuGraphExecDestroy")
        del self._executables[executable.value]
        self._gpu.alive["graph"] -= 1
        return SUCCESS

    def cuEventCreate(self, event: Any, flags: int) -> int:
        if code := self._refuses("cuEventCreate"):
            return code
        event._obj.value = self._gpu.handle()
        self._gpu.alive["event"] += 1
        return SUCCESS

    def cuEventRecord(self, event: Any, stream: Any) -> int:
        if code := self._refuses("cuEventRecord"):
            return code
        self._events[event.value] = self._gpu.streams.get(stream.value)
        return SUCCESS

    def cuStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> int:
        if code := self._refuses("cuStreamWaitEvent"):
            return code
        producer = self._events[event.value]
        if producer is not None:
            self._gpu.give(self._gpu.streams[stream.value], producer.drain)
        return SUCCESS

    def cuPointerGetAttribute(self, data: Any, attribute: int, pointer: Any) -> int:
        if code := self._refuses("cuPointerGetAttribute"):
            return code
        assert attribute == 9
        try:
            self._gpu.memory_at(pointer.value, 1)
        except IllegalAddressError:
            return INVALID_VALUE
        data._obj.value = self._gpu.ordinals.get(pointer.value, 0)
        return SUCCESS

    def cuEventDestroy_v2(self, event: Any) -> int:
        self._gpu.called("cuEventDestroy_v2")
        self._gpu.alive["event"] -= 1
        return SUCCESS

"""Frames on their way to the GPU: two buffers, of which one is read while the other is filled."""

from __future__ import annotations

import numpy as np

from ....common.types import Image
from ..device_frame import DeviceFrame, Pixels, not_on_this_gpu
from .allocations import ALIGNMENT
from .device import Device
from .tensors import DeviceTensors


class FrameUploads:
    """Uploads the frame of each step, or the frame after it early if it was announced."""

    def __init__(self) -> None:
        self._turn = 0  # buffer of the next frame
        self._announced: Image | None = None
        self._uploaded: Image | None = None

    def announce(self, frame: Image) -> None:
        """Name the frame after the next one; one that is on the GPU already needs no upload."""
        self._announced = frame if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 else None

    def forget_early_upload(self) -> None:
        """Upload the next frame in any case: the buffers were replaced."""
        self._uploaded = None

    def clear(self) -> None:
        """Refer to no frame any longer."""
        self._announced = self._uploaded = None

    def address(self, tensors: DeviceTensors) -> int:
        """Address of the present buffer."""
        return tensors.frames[self._turn].address

    def place(self, device: Device, tensors: DeviceTensors, frame: Pixels) -> int:
        """Bring the frame to the GPU unless it is there; returns its address.

        Raises:
            SourceError: when it is in the memory of another GPU.
        """
        if isinstance(frame, DeviceFrame):
            return self._place_device_frame(device, tensors, frame)
        if self._uploaded is frame:
            self._turn = 1 - self._turn
            device.await_early_upload()
        else:
            host = tensors.host_frames[self._turn].array
            host[:] = frame
            device.upload(self.address(tensors), host)
        self._uploaded = None
        return self.address(tensors)

    def upload_announced(self, device: Device, tensors: DeviceTensors) -> None:
        """Upload the announced frame, if there is one, to the buffer that is not in use."""
        frame, self._announced = self._announced, None
        other = 1 - self._turn
        host = tensors.host_frames[other].array
        if frame is None or frame.shape != host.shape:
            return
        host[:] = frame
        device.upload_early(tensors.frames[other].address, host)
        self._uploaded = frame

    def _place_device_frame(self, device: Device, tensors: DeviceTensors, frame: DeviceFrame) -> int:
        if not device.can_read(frame.address):
            raise not_on_this_gpu(frame)
        if frame.stream is not None:
            device.await_foreign(frame.stream)
        if frame.address % ALIGNMENT == 0:
            return frame.address
        device.copy(self.address(tensors), frame.address, frame.size)
        self._uploaded = None
        return self.address(tensors)

"""Track a video on a Triton server: python client.py VIDEO MASK [localhost:8001] [--out DIR] [--wait SECONDS]

Prints the area of every object in every frame; --out writes the masks. Needs maskring, which reads videos, cameras
and masks here as `maskring track` does, and tritonclient[grpc].
"""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from maskring.common.errors import MaskError, SourceError, UnavailableError, UserError
from maskring.runtime.tracking.objects import ObjectTable
from maskring.runtime.video.masks import read_mask, write_mask
from maskring.runtime.video.open_source import open_source

MODEL = "maskring"
EXPIRED = "timeout of the corresponding sequence has been expired"
"""What Triton answers to a stream that has found no free place."""


class Stream:
    """One video on the server, which holds its memory from the first frame until this object is closed.

    The stream goes by a random number: two streams of one number would write into one memory.

    Args:
        address: host and port of Triton's gRPC service.
        mask: [H, W] uint8, ids of the objects in the first frame.
        wait: seconds to wait for a free place on the server.

    Raises:
        UnavailableError: when the server cannot be reached, or does not serve the model.
        MaskError: when the mask is empty, of another size, or has more objects than the model was exported for.
    """

    def __init__(self, address: str, mask: NDArray[np.uint8], wait: float = 30.0) -> None:
        self._client = triton.InferenceServerClient(address)
        try:
            config = self._client.get_model_config(MODEL).config
        except InferenceServerException as error:
            raise UnavailableError(
                f"Triton at {address} does not answer for {MODEL}: {error.message()}",
                "check the address, and that the server has loaded the model",
            ) from None
        self.size = tuple(next(tensor.dims for tensor in config.input if tensor.name == "mask")[1:])
        objects = int(config.parameters["objects"].string_value)
        if mask.shape != self.size:
            raise MaskError(_other_size("the mask", mask.shape, self.size), _size_remedy(mask.shape))
        self._objects = ObjectTable().with_objects_of(mask, max_labels=objects + 1)
        self._ids = np.array([0, *self._objects.ids], np.uint8)
        self._mask = self._objects.to_channels(mask)
        self._address, self._wait = address, wait
        self._number = 1 + secrets.randbelow(2**63 - 1)
        self._is_open = False

    def step(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The object ids [H, W] of the next frame, [H, W, 3] uint8 RGB.

        Raises:
            SourceError: when the frame has another size than the model.
            UnavailableError: when no place became free in time, or the server is lost or has dropped the stream.
        """
        if image.shape[:2] != self.size:
            raise SourceError(_other_size("the frame", image.shape, self.size), _size_remedy(image.shape))
        labels: NDArray[np.uint8]
        if self._is_open:
            labels = self._infer(image, np.zeros_like(self._mask))
        else:
            labels = self._infer(
                image, self._mask, sequence_start=True, timeout=max(1, round(self._wait * 1e6))
            )
            self._is_open = True
        return self._ids[labels]

    def _infer(self, image: NDArray[np.uint8], mask: NDArray[np.uint8], **settings: Any) -> Any:
        inputs = [_tensor("frame", image[None]), _tensor("mask", mask[None])]
        try:
            answer = self._client.infer(MODEL, inputs, sequence_id=self._number, **settings)
        except InferenceServerException as error:
            self._is_open = False
            raise self._explained(error.message()) from None
        return answer.as_numpy("labels")[0]

    def _explained(self, message: str) -> UnavailableError:
        if EXPIRED in message:
            return UnavailableError(
                f"Triton at {self._address} had no place for another stream within {self._wait:g} seconds",
                "end another stream, wait longer (--wait), or export with a larger --streams",
            )
        if "must specify the START flag" in message:
            return UnavailableError(
                f"Triton at {self._address} has dropped this stream: it paused for too long, or the server restarted",
                "start again from a mask",
            )
        return UnavailableError(f"Triton at {self._address} failed: {message}", "check the server's log")

    def close(self) -> None:
        """Free the stream's place on the server. Otherwise the server does so after a pause of 30 seconds."""
        if self._is_open:
            self._infer(np.zeros((*self.size, 3), np.uint8), np.zeros_like(self._mask), sequence_end=True)
        self._is_open = False

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _tensor(name: str, array: NDArray[np.uint8]) -> triton.InferInput:
    request_input = triton.InferInput(name, list(array.shape), "UINT8")
    request_input.set_data_from_numpy(np.ascontiguousarray(array))
    return request_input


def _other_size(what: str, shape: tuple[int, ...], size: tuple[int, ...]) -> str:
    return f"{what} is {shape[1]} x {shape[0]} pixels, and the served model takes {size[1]} x {size[0]}"


def _size_remedy(shape: tuple[int, ...]) -> str:
    return f"scale the video and its mask, or export with --height {shape[0]} --width {shape[1]}"


def main() -> None:
    """Track one video."""
    parser = argparse.ArgumentParser(description="Track a video on a Triton server.")
    parser.add_argument("video", help="a video, a folder of images, a camera or an address")
    parser.add_argument("mask", help="object ids of the first frame")
    parser.add_argument("address", nargs="?", default="localhost:8001", help="Triton's gRPC service")
    parser.add_argument("--out", type=Path, help="folder for the masks")
    parser.add_argument("--wait", type=float, default=30.0, help="seconds to wait for a free place")
    given = parser.parse_args()
    mask = read_mask(given.mask)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
    with open_source(given.video) as source, Stream(given.address, mask, given.wait) as stream:
        for frame in source:
            ids = stream.step(frame.image)
            areas = np.bincount(ids.ravel())
            visible = [f"object {one}: {area} pixels" for one, area in enumerate(areas) if one and area]
            print(frame.index, *visible)
            if given.out is not None:
                write_mask(given.out / f"{frame.name}.png", ids)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)

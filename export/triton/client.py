"""Track a video on a Triton server: python client.py VIDEO MASK.png [localhost:8001]

Needs numpy, opencv-python and tritonclient[grpc]. Pixels of the mask are 0 for background and 1, 2, ... for
the objects. Frames and mask must have the size that the model was exported for.
"""

import sys

import cv2
import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray


def tensor(name: str, array: NDArray[np.uint8]) -> triton.InferInput:
    """An input of the request."""
    request_input = triton.InferInput(name, list(array.shape), "UINT8")
    request_input.set_data_from_numpy(np.ascontiguousarray(array))
    return request_input


def main(video: str, mask_file: str, address: str = "localhost:8001") -> None:
    """Print the area of every object in every frame."""
    client = triton.InferenceServerClient(address)
    mask = np.asarray(cv2.imread(mask_file, cv2.IMREAD_GRAYSCALE), np.uint8)
    capture = cv2.VideoCapture(video)
    has_frame, frame = capture.read()
    index = 0
    while has_frame:
        has_next, next_frame = capture.read()
        inputs = [
            tensor("frame", np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)[None]),
            tensor("mask", (mask if index == 0 else np.zeros_like(mask))[None]),
        ]
        answer = client.infer(
            "maskring", inputs, sequence_id=1, sequence_start=index == 0, sequence_end=not has_next
        )
        labels = answer.as_numpy("labels")[0]
        areas = np.bincount(labels.ravel())
        visible = [f"object {label}: {area} pixels" for label, area in enumerate(areas) if label and area]
        print(index, *visible)
        has_frame, frame, index = has_next, next_frame, index + 1


if __name__ == "__main__":
    main(*sys.argv[1:])

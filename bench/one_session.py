"""The exported file in one onnxruntime session, with the operator library, against the path that cuts it.

Both ways track the same frames in turns in one run; a figure is the median over frames of the ratio to the cut path, in
wall clock and in CPU time of all cores. Ways:

- cut: what ``OnnxRuntimeBackend`` does: OpenCV's colours, the encoder in a session, reads and labels by maskring.
- middle: one session from colours to probabilities, with the operator library; colours and labels as in cut.
- whole: the file as it was exported, in one session with the operator library, bound to the ring's memory.

    python bench/one_session.py            # pico and nano, float32 and int8, 1 and 10 objects, 854x480, 2 threads
    python bench/one_session.py --encoders pico --repeats 5
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from step import quantized, scene

from maskring.models import resolve_model
from maskring.plugins import onnxruntime_library
from maskring.plugins.operator_library import THREADS_ENTRY
from maskring.runtime.arrays.upsampling import argmax_planes, best_labels_of_pixels
from maskring.runtime.backends.onnxrt.backend import OnnxRuntimeBackend
from maskring.runtime.backends.onnxrt.colour import normalised_lab
from maskring.runtime.backends.onnxrt.integer_encoder import for_integer_kernels
from maskring.runtime.backends.onnxrt.session import BoundSession
from maskring.runtime.backends.onnxrt.tensors import HostTensors
from maskring.runtime.model.step_graph import load_step_graph, subgraph
from maskring.runtime.model.tensor_names import (
    DILATION,
    KEY,
    KEYS,
    LAB,
    LABELS,
    PROBABILITIES,
    VALUE,
    VALUES,
)
from maskring.runtime.tracking.tracker import Tracker


def session_with_library(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """A session like the backend's, with the operator library."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(THREADS_ENTRY, str(threads))
    options.log_severity_level = 4
    options.register_custom_ops_library(str(onnxruntime_library()))
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


class Whole:
    """Executor of the file as it is."""

    def __init__(self, path: Path, threads: int) -> None:
        graph, self._metadata = load_step_graph(path)
        self._session = session_with_library(for_integer_kernels(graph), threads)

    def bind(self, tensors: HostTensors) -> None:
        self._tensors = tensors
        self._bound: dict[int, BoundSession] = {}

    def run(self, slot: int) -> None:
        if slot not in self._bound:
            outputs = self._tensors.outputs(slot)
            self._bound[slot] = BoundSession.to(self._session, self._tensors.inputs(), outputs)
        self._bound[slot].run()


class Middle(Whole):
    """Executor with colours and labels outside the session."""

    def __init__(self, path: Path, threads: int) -> None:
        graph, self._metadata = load_step_graph(path)
        part = subgraph(graph, [LAB, KEYS, VALUES, DILATION], [KEY, PROBABILITIES])
        part.functions.extend(graph.functions)
        self._session = session_with_library(for_integer_kernels(part), threads)

    def bind(self, tensors: HostTensors) -> None:
        super().bind(tensors)
        self._lab = np.zeros((1, 3, *tensors.frame.shape[1:3]), np.float32)

    def run(self, slot: int) -> None:
        normalised_lab(self._tensors.frame[0], self._metadata, out=self._lab[0])
        outputs = self._tensors.outputs(slot)
        if slot not in self._bound:
            written = {name: outputs[name] for name in (KEY, PROBABILITIES)}
            inputs = self._tensors.inputs() | {LAB: self._lab}
            self._bound[slot] = BoundSession.to(self._session, inputs, written)
        self._bound[slot].run()
        probabilities = outputs[PROBABILITIES][0]
        best = argmax_planes(probabilities)
        best_labels_of_pixels(probabilities, best, self._metadata.stride, out=outputs[LABELS][0])
        for label, plane in enumerate(outputs[VALUE][0]):
            np.equal(best, label, out=plane)


def tracker(path: Path, way: str, threads: int) -> Tracker:
    """A tracker whose backend executes the file in that way."""
    backend: Any = OnnxRuntimeBackend(path, threads=threads)
    if way != "cut":
        backend._executor = {"whole": Whole, "middle": Middle}[way](path, threads)
    return Tracker(backend)


def measure(path: Path, objects: int, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """[frames, 2] seconds of wall clock and of CPU by way; also compares the labels of all ways."""
    trackers = {way: tracker(path, way, options.threads) for way in ("cut", "middle", "whole")}
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in trackers}
    for index in range(options.warm_up + options.repeats):
        frame, mask = scene(index, options.height, options.width, objects)
        results = {}
        for way, each in trackers.items():
            wall, cpu = time.perf_counter(), time.process_time()
            result = each.step(frame, None if index else mask)
            if index >= options.warm_up:
                times[way].append((time.perf_counter() - wall, time.process_time() - cpu))
            results[way] = result.labels
        same = min(float((results[way] == results["cut"]).mean()) for way in trackers)
        assert same > 0.99, f"labels of frame {index} differ: {same}"
    return {way: np.array(pairs) for way, pairs in times.items()}


def main() -> None:
    """Measure every combination and print a row for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoders", nargs="+", default=["pico", "nano"])
    parser.add_argument("--objects", nargs="+", type=int, default=[1, 10])
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warm-up", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=25)
    options = parser.parse_args()
    print("encoder type objects | cut ms | middle / cut wall CPU | whole / cut wall CPU")
    with tempfile.TemporaryDirectory() as folder:
        for encoder in options.encoders:
            plain = Path(shutil.copy(resolve_model(Path(encoder)), folder)).rename(
                Path(folder) / f"{encoder}.onnx"
            )
            for kind, path in (("float32", plain), ("int8", quantized(plain))):
                for objects in options.objects:
                    times = measure(path, objects, options)
                    ratios = [np.median(times[way] / times["cut"], axis=0) for way in ("middle", "whole")]
                    shown = " | ".join(f"{wall:.2f} {cpu:.2f}" for wall, cpu in ratios)
                    milliseconds = float(np.median(times["cut"][:, 0])) * 1e3
                    print(f"{encoder} {kind} {objects} | {milliseconds:.1f} | {shown}", flush=True)


if __name__ == "__main__":
    main()

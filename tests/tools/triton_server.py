"""Triton for tests: a fake with the rules of its sequence scheduler, and the real one where it is installed.

The fake follows ``sequence_batch_scheduler.cc`` of Triton's core, for models that take one request at a time: a
sequence holds a slot from START to END, further sequences wait in the order of their arrival, and a sequence that has
sent nothing for too long loses its slot.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import InferenceServerClient, model_config_pb2, service_pb2

START_SECONDS = 120
"""Longest start of a real server on a busy machine."""


def read_config(repository: Path) -> Any:
    """``config.pbtxt`` parsed by the schema that Triton's own client ships."""
    text = (repository / "maskring" / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def empty_state(config: Any) -> dict[str, np.ndarray]:
    """A state of zeros, as ``initial_state`` asks for it."""
    return {
        s.input_name: np.zeros(list(s.dims), np.int32 if s.input_name == "clock" else np.float32)
        for s in config.sequence_batching.state
    }


class FakeTriton:
    """Triton's gRPC service with one copy of one model.

    Attributes:
        last_used: the sequences that hold a slot, and when each was last heard of.
        waiting: the sequences that wait for a slot, first come, first served.
    """

    def __init__(self, repository: Path) -> None:
        self.config = read_config(repository)
        self._session = onnxruntime.InferenceSession(repository / "maskring" / "1" / "model.onnx")
        batching = self.config.sequence_batching
        direct = max(1, self.config.max_batch_size)
        self.slots = batching.oldest.max_candidate_sequences if batching.HasField("oldest") else direct
        self._idle = batching.max_sequence_idle_microseconds / 1e6
        self._states: dict[int, dict[str, np.ndarray]] = {}
        self.last_used: dict[int, float] = {}
        self.waiting: deque[int] = deque()
        self.changed = threading.Condition()
        self._skipped = 0.0
        self._stopped = False

    def stop(self) -> None:
        """Turn away the sequences that still wait."""
        with self.changed:
            self._stopped = True
            self.changed.notify_all()

    def _now(self) -> float:
        return time.monotonic() + self._skipped

    def pass_time(self, seconds: float) -> None:
        """Let this much time pass for the server alone."""
        with self.changed:
            self._skipped += seconds
            self.changed.notify_all()

    def model_config(self, request: Any, context: Any) -> Any:
        if request.name != self.config.name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}'")
        return service_pb2.ModelConfigResponse(config=self.config)

    def infer(self, request: Any, context: Any) -> Any:
        sent = {key: value.int64_param or value.bool_param for key, value in request.parameters.items()}
        number = sent["sequence_id"]
        given = zip(request.inputs, request.raw_input_contents, strict=True)
        feeds = {t.name: np.frombuffer(raw, np.uint8).reshape(list(t.shape)) for t, raw in given}
        assert request.model_name == self.config.name and {t.datatype for t in request.inputs} == {"UINT8"}
        with self.changed:
            self._drop_idle()
            self._admit(number, sent, context)
            labels = self._step(number, feeds, bool(sent.get("sequence_start")))
            self.last_used[number] = self._now()
            if sent.get("sequence_end"):
                del self.last_used[number]
            self.changed.notify_all()
        answer = service_pb2.ModelInferResponse(raw_output_contents=[labels.tobytes()])
        answer.outputs.add(name="labels", datatype="UINT8", shape=labels.shape)
        return answer

    def _drop_idle(self) -> None:
        for number, last in list(self.last_used.items()):
            if self._now() - last >= self._idle:
                del self.last_used[number]

    def _admit(self, number: int, sent: dict[str, Any], context: Any) -> None:
        """Return when the sequence holds a slot. One that holds a slot keeps it through a second START."""
        if number in self.last_used:
            return
        if not sent.get("sequence_start"):
            message = (
                f"inference request for sequence {number} to model 'maskring' must specify the START flag on the "
                "first request of the sequence"
            )
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
        self.waiting.append(number)
        self.changed.notify_all()
        timeout = sent["timeout"] / 1e6 if sent.get("timeout") else None
        self.changed.wait_for(lambda: self._stopped or self._is_next(number), timeout)
        admitted = self._is_next(number)
        self.waiting.remove(number)
        if not admitted:
            message = "timeout of the corresponding sequence has been expired"
            context.abort(grpc.StatusCode.UNAVAILABLE, message)

    def _is_next(self, number: int) -> bool:
        self._drop_idle()
        return self.waiting[0] == number and len(self.last_used) < self.slots

    def _step(self, number: int, feeds: dict[str, np.ndarray], start: bool) -> np.ndarray:
        if start:
            self._states[number] = empty_state(self.config)
        state = self._states[number]
        names = ["labels", *(f"{name}_next" for name in state)]
        feeds |= {"start": np.array([start], np.int32)}
        labels, *after = self._session.run(names, feeds | state)
        state.update(zip(state, after, strict=True))
        return np.asarray(labels)


@contextmanager
def serving(triton: FakeTriton) -> Iterator[str]:
    """The fake's address while it serves."""
    requests = {
        "ModelInfer": (triton.infer, service_pb2.ModelInferRequest),
        "ModelConfig": (triton.model_config, service_pb2.ModelConfigRequest),
    }
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            function,
            request_deserializer=kind.FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
        for name, (function, kind) in requests.items()
    }
    server = grpc.server(ThreadPoolExecutor(8))
    service = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)
    server.add_generic_rpc_handlers((service,))
    address = f"localhost:{server.add_insecure_port('localhost:0')}"
    server.start()
    try:
        yield address
    finally:
        triton.stop()
        server.stop(None).wait()


def missing_triton() -> str:
    """Why no real Triton can run here; empty when one can."""
    if os.environ.get("TRITONSERVER") or importlib.util.find_spec("pytriton"):
        return ""
    return "set TRITONSERVER to a tritonserver, or run pip install --no-deps nvidia-pytriton"


@contextmanager
def real_triton(repository: Path, scratch: Path) -> Iterator[str]:
    """The address of a real server that serves ``repository``.

    ``TRITONSERVER`` names an executable that serves it as it is. The server of the package ``nvidia-pytriton`` has no
    backend but Python's, and that one keeps no state: there a Python model runs the ONNX file and holds the state
    of each sequence, while scheduling and protocol are Triton's own.
    """
    executable = os.environ.get("TRITONSERVER")
    environment = os.environ.copy()
    options = []
    if executable is None:
        spec = importlib.util.find_spec("pytriton")
        assert spec is not None and spec.origin is not None
        package = Path(spec.origin).parent
        executable = str(package / "tritonserver" / "bin" / "tritonserver")
        environment["LD_LIBRARY_PATH"] = str(package.parent / "nvidia_pytriton.libs")
        options = ["--backend-directory", str(_python_backend(package, scratch / "backends"))]
        repository = _python_model(repository, scratch / "models")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [executable, "--model-repository", str(repository), *options, "--allow-http", "false"]
    command += [
        "--allow-metrics",
        "false",
        "--grpc-address",
        "127.0.0.1",
        "--grpc-port",
        address.split(":")[1],
    ]
    log = scratch / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(server, address, log)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def _python_backend(package: Path, folder: Path) -> Path:
    """Backends of ``nvidia-pytriton``, with the Python of this process."""
    shutil.copytree(package / "tritonserver" / "backends", folder)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = package / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, folder / "python")
    return folder


PYTHON_MODEL = """
import sys

sys.path[:0] = {path!r}
import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        self.session = onnxruntime.InferenceSession({model!r})
        self.tensors = {{t.name: t for t in self.session.get_inputs() if t.name in ("keys", "values", "clock")}}
        self.states = {{}}

    def execute(self, requests):
        return [self.step(request) for request in requests]

    def step(self, request):  # DLPack, because this backend misreads arrays of NumPy 2
        names = ("frame", "mask", "start", "stream")
        given = {{name: np.from_dlpack(triton.get_input_tensor_by_name(request, name)) for name in names}}
        number = int(given.pop("stream")[0])
        if given["start"][0]:
            kinds = {{"tensor(int32)": np.int32, "tensor(float)": np.float32}}
            self.states[number] = {{n: np.zeros(t.shape, kinds[t.type]) for n, t in self.tensors.items()}}
        state = self.states[number]
        outputs = ["labels", *(name + "_next" for name in state)]
        labels, *after = self.session.run(outputs, given | state)
        self.states[number] = dict(zip(state, after))
        tensor = triton.Tensor.from_dlpack("labels", labels)
        return triton.InferenceResponse([tensor])
"""


def _python_model(repository: Path, folder: Path) -> Path:
    config = read_config(repository)
    config.backend = "python"
    del config.sequence_batching.state[:]
    stream = config.sequence_batching.control_input.add(name="stream")
    kinds = model_config_pb2.ModelSequenceBatching.Control
    stream.control.add(kind=kinds.CONTROL_SEQUENCE_CORRID, data_type=model_config_pb2.TYPE_UINT64)
    model = folder / "maskring"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(text_format.MessageToString(config))
    served = str(repository / "maskring" / "1" / "model.onnx")
    path = [entry for entry in sys.path if "site-packages" in entry]
    (model / "1" / "model.py").write_text(PYTHON_MODEL.format(path=path, model=served))
    return folder


def _wait_until_ready(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    client = InferenceServerClient(address)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if client.is_model_ready("maskring"):
                return
        except Exception:  # not listening yet
            threading.Event().wait(0.2)
    raise RuntimeError(f"Triton did not start:\n{log.read_text()[-4000:]}")

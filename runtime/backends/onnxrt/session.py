"""onnxruntime sessions that read and write arrays in place, and what onnxruntime raises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native_errors

from ....common.types import Array

# Most of onnxruntime's errors have no common base; those of bound runs arrive as RuntimeError.
SESSION_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    UnicodeDecodeError,  # a message that quotes the file
    *(
        kind
        for kind in vars(native_errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
)
"""Everything that loading and running a session may raise."""


def error_reason(error: Exception) -> str:
    """onnxruntime's message without its codes and source locations."""
    text = str(error).split("Status Message: ")[-1].split(" : ")[-1]
    return " ".join(text.split())[:200].rstrip(". ") or type(error).__name__


Providers = Sequence[str | tuple[str, Mapping[str, str]]]
"""Execution providers, best first, some with their settings."""


def open_session(
    model: onnx.ModelProto,
    threads: int,
    *,
    library: Path | None = None,
    providers: Providers = ("CPUExecutionProvider",),
) -> onnxruntime.InferenceSession:
    """A silent session whose threads sleep between runs.

    Args:
        model: what it executes.
        threads: CPU threads, 0 for onnxruntime's own choice.
        library: operators to register.
        providers: where operators run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning threads would take cores from the memory read and everything else.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # failures arrive as exceptions; stderr belongs to the program
    if library is not None:
        options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=list(providers),
        enable_fallback=0,  # to the same provider, announced on stdout
    )


@dataclass(frozen=True)
class BoundSession:
    """A session that reads and writes arrays in place.

    Attributes:
        session: the session to run.
        binding: addresses of the arrays.
        arrays: the arrays themselves, which must live as long as their addresses are in use.
    """

    session: onnxruntime.InferenceSession
    binding: onnxruntime.IOBinding
    arrays: tuple[Array, ...]

    @classmethod
    def to(
        cls, session: onnxruntime.InferenceSession, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> BoundSession:
        """Bind contiguous arrays by name; inputs that the session does not have are left out."""
        binding = session.io_binding()
        used = {declared.name: inputs[declared.name] for declared in session.get_inputs()}
        for bind, arrays in ((binding.bind_input, used), (binding.bind_output, outputs)):
            for name, array in arrays.items():
                assert array.flags.c_contiguous
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return cls(session, binding, (*used.values(), *outputs.values()))

    def run(self) -> None:
        """Run the session once."""
        self.session.run_with_iobinding(self.binding)

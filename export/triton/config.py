"""Triton's configuration of the served model."""

from __future__ import annotations

from ...runtime.model.metadata import ModelMetadata
from .state import fixed_sizes, state_tensors

MODEL_NAME = "maskring"

IDLE_SECONDS = 30
"""Triton drops a sequence that has sent nothing for this long and never sent END."""

OBJECTS = "objects"
"""Parameter by which clients learn how many objects a sequence may have."""

DEFAULT_STREAMS = 8
"""Sequences that are tracked at once."""


def model_config(metadata: ModelMetadata, streams: int) -> str:
    """The text of ``config.pbtxt`` for the served model, which tracks ``streams`` sequences at once.

    One copy of the model serves them in turn. Triton's other strategy, ``direct``, would give each copy one
    sequence until its END, and let all others wait.
    """
    height, width, labels = fixed_sizes(metadata)
    size = f"1, {height}, {width}"
    states = ",\n".join(_state_config(*spec) for spec in state_tensors(metadata))
    return f"""# The first request of a sequence carries START and the mask, the last one END.
# max_candidate_sequences is the number of streams at once; further ones wait until one ends.
# No backend is named: Triton executes model.plan with TensorRT where there is one, else model.onnx.
name: "{MODEL_NAME}"
max_batch_size: 0
input [
  {{ name: "frame" data_type: TYPE_UINT8 dims: [ {size}, 3 ] }},
  {{ name: "mask" data_type: TYPE_UINT8 dims: [ {size} ] }}
]
output [
  {{ name: "labels" data_type: TYPE_UINT8 dims: [ {size} ] }}
]
sequence_batching {{
  oldest {{ max_candidate_sequences: {streams} }}
  max_sequence_idle_microseconds: {IDLE_SECONDS * 10**6}
  control_input [
    {{
      name: "start"
      control [ {{ kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }} ]
    }}
  ]
  state [
{states}
  ]
}}
instance_group [ {{ kind: KIND_AUTO count: 1 }} ]
parameters {{ key: "{OBJECTS}" value {{ string_value: "{labels - 1}" }} }}
"""


def _state_config(name: str, kind: str, dims: list[int]) -> str:
    sizes = ", ".join(map(str, dims))
    return f"""    {{
      input_name: "{name}"
      output_name: "{name}_next"
      data_type: TYPE_{kind}
      dims: [ {sizes} ]
      initial_state: {{
        name: "{name} of a new sequence"
        data_type: TYPE_{kind}
        dims: [ {sizes} ]
        zero_data: true
      }}
    }}"""

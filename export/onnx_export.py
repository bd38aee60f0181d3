"""Export of a checkpoint to one ONNX file that holds a whole tracking step."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor

from ..common.errors import ModelError
from ..common.files import atomic_path, make_directory
from ..common.types import MAX_LABELS
from ..plugins.windowed_affinity.onnx_op import DOMAIN, OPSET_VERSION
from ..runtime.model.metadata import MAX_SETTING, METADATA_KEY, ModelMetadata
from ..runtime.model.tensor_names import INPUTS, OUTPUTS
from ..training.checkpoint import Checkpoint, load_checkpoint
from ..training.network.colour import LAB_MEAN, LAB_STD
from ..training.network.encoder import STRIDE
from .onnx_graph import attach_bodies, cast_frame_first, declare_interface, name_lab, translations
from .step_module import StepGraph
from .torch_export import ONNX_OPSET, quiet, strip_provenance

DTYPES = {"float32": torch.float32, "float16": torch.float16}

TRACED_HEIGHT, TRACED_WIDTH, TRACED_LABELS, TRACED_SLOTS = 50, 70, 4, 5
"""Sizes to trace dynamic axes with. They differ, so that no two axes are taken for one, and none is 0 or 1,
which tracing would make a constant."""


def export_onnx(
    checkpoint: Path,
    out: Path,
    *,
    height: int | None = None,
    width: int | None = None,
    num_labels: int | None = None,
    num_slots: int | None = None,
    radius: int | None = None,
    logit_scale: float | None = None,
    top_k: int | None = None,
    roi_step: int | None = None,
    smoothing_radius: int | None = None,
    confidence_exponent: int | None = None,
    guided_filter_radius: int | None = None,
    dtype: str = "float32",
) -> None:
    """Write the step graph of ``checkpoint`` to ``out``. The same checkpoint and settings give equal bytes.

    Args:
        checkpoint: a maskring checkpoint.
        out: the ``.onnx`` to write.
        height, width: frame size in pixels; None for any.
        num_labels: O, background included; None for any.
        num_slots: N, frames in memory; None for any.
        radius, logit_scale, top_k, roi_step, smoothing_radius, confidence_exponent, guided_filter_radius: settings
            of tracking (:class:`maskring.runtime.model.metadata.ModelMetadata`); None for the checkpoint's own.
        dtype: ``float32`` or ``float16``: type of features and label maps.

    Raises:
        ModelError: when the checkpoint cannot be used, or a setting cannot be exported.
        OutputError: when ``out`` cannot be written.
    """
    loaded = load_checkpoint(checkpoint)
    default = loaded.tracking
    metadata = ModelMetadata(
        stride=STRIDE,
        channels=loaded.config.channels,
        radius=default.radius if radius is None else radius,
        logit_scale=default.logit_scale if logit_scale is None else logit_scale,
        top_k=default.top_k if top_k is None else top_k,
        roi_step=default.roi_step if roi_step is None else roi_step,
        smoothing_radius=default.smoothing_radius if smoothing_radius is None else smoothing_radius,
        confidence_exponent=(
            default.confidence_exponent if confidence_exponent is None else confidence_exponent
        ),
        guided_filter_radius=(
            default.guided_filter_radius if guided_filter_radius is None else guided_filter_radius
        ),
        num_slots=num_slots,
        height=height,
        width=width,
        num_labels=num_labels,
        dtype=dtype,
        lab_mean=LAB_MEAN,
        lab_std=LAB_STD,
        checkpoint=checkpoint.stem,
        checkpoint_sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    )
    _check_settings(metadata)
    model = step_model(loaded, metadata)
    make_directory(out.parent)
    with atomic_path(out) as partial:
        partial.write_bytes(model.SerializeToString(deterministic=True))


def step_graph(checkpoint: Checkpoint, metadata: ModelMetadata) -> StepGraph:
    """The torch module that ``metadata`` describes."""
    return StepGraph(
        checkpoint.query_encoder(),
        radius=metadata.radius,
        logit_scale=metadata.logit_scale,
        top_k=metadata.top_k,
        roi_step=metadata.roi_step,
        smoothing_radius=metadata.smoothing_radius,
        confidence_exponent=metadata.confidence_exponent,
        guided_filter_radius=metadata.guided_filter_radius,
        dtype=DTYPES[metadata.dtype],
    ).eval()


def step_model(checkpoint: Checkpoint, metadata: ModelMetadata) -> onnx.ModelProto:
    """The step graph as a checked ONNX model with the function bodies of its memory reads."""
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            step_graph(checkpoint, metadata),
            _example_inputs(metadata),
            dynamo=True,
            dynamic_shapes=_dynamic_shapes(metadata),
            input_names=INPUTS,
            output_names=OUTPUTS,
            opset_version=ONNX_OPSET,
            custom_translation_table=translations(),
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    declare_interface(model, metadata)
    cast_frame_first(model.graph)
    name_lab(model.graph)
    strip_provenance(model, "maskring_step")
    if not any(entry.domain == DOMAIN for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, OPSET_VERSION))
    attach_bodies(model)
    model.producer_name = "maskring"
    model.producer_version = ""  # a new version of the package alone must not change the bytes
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model


def _check_settings(metadata: ModelMetadata) -> None:
    sizes = {
        "height": metadata.height,
        "width": metadata.width,
        "number of labels": metadata.num_labels,
        "number of slots": metadata.num_slots,
    }
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ModelError(
                f"a {name} of {size} cannot be exported", "give a positive number, or none for any"
            )
    if (metadata.height is None) != (metadata.width is None):
        raise ModelError(
            "only one of height and width is fixed", "give both --height and --width, or neither"
        )
    settings = {
        "radius": metadata.radius,
        "top-k": metadata.top_k,
        "roi-step": metadata.roi_step,
        "smoothing-radius": metadata.smoothing_radius,
        "confidence-exponent": metadata.confidence_exponent,
        "guided-filter-radius": metadata.guided_filter_radius,
    }
    for name, value in settings.items():
        if value < 0:
            raise ModelError(f"a {name} of {value} cannot be exported", f"give --{name} 0 or more")
    if not 2.0**-126 <= metadata.logit_scale <= 2.0**127:  # beyond, float32 turns it into 0 or infinity
        raise ModelError(
            f"a logit scale of {metadata.logit_scale} cannot be exported",
            "give a positive, finite --logit-scale",
        )
    if metadata.dtype not in DTYPES:
        raise ModelError(f"there is no export in {metadata.dtype}", f"choose {' or '.join(DTYPES)}")
    try:
        ModelMetadata.from_json(metadata.to_json(), "the model")
    except ModelError as error:
        raise ModelError(
            "a size or setting is beyond what the runtime accepts",
            f"give 2 to {MAX_LABELS} labels, and at most {MAX_SETTING} of everything else",
        ) from error


def _example_inputs(metadata: ModelMetadata) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    height, width = metadata.height or TRACED_HEIGHT, metadata.width or TRACED_WIDTH
    rows, columns = metadata.feature_size(height, width)
    slots, labels = metadata.num_slots or TRACED_SLOTS, metadata.num_labels or TRACED_LABELS
    dtype = DTYPES[metadata.dtype]
    return (
        torch.zeros(1, height, width, 3, dtype=torch.uint8),
        torch.zeros(1, slots, metadata.channels, rows, columns, dtype=dtype),
        torch.zeros(1, slots, labels, rows, columns, dtype=dtype),
        torch.ones(1, slots, dtype=torch.int32),
    )


def _dynamic_shapes(metadata: ModelMetadata) -> tuple[dict[int, Any], ...]:
    """The axes of each input that may change from call to call."""
    dynamic = torch.export.Dim.AUTO
    pixels = {1: dynamic, 2: dynamic} if metadata.height is None else {}
    grid = {3: dynamic, 4: dynamic} if metadata.height is None else {}
    slots = {1: dynamic} if metadata.num_slots is None else {}
    labels = {2: dynamic} if metadata.num_labels is None else {}
    return (pixels, slots | grid, slots | labels | grid, slots)

"""Export of an adapted U-Net to ONNX: a view of a frame in, label probabilities out."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from ..common.errors import UserError
from ..common.files import atomic_path, make_directory
from ..runtime.refinement.network.checkpoint import FORMAT, load_predictor
from ..runtime.refinement.network.unet import UNet
from ..runtime.refinement.settings import SMALLEST_SIZE
from .torch_export import ONNX_OPSET, quiet, strip_provenance


class RefinerGraph(nn.Module):
    """uint8 RGB [1, S, S, 3] to float32 probabilities [1, labels, S, S]."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities of background and of all objects."""
        values = image.float()  # first of all: TensorRT takes uint8 into a cast only
        logits: Tensor = self.unet(values.permute(0, 3, 1, 2) / 255)
        return logits.softmax(1)


def export_refiner(refiner: Path, out: Path, *, size: int = 320) -> None:
    """Write the U-Net of ``refiner`` to ``out``. The same refiner and size give equal bytes.

    The metadata entry ``maskring-refiner`` lists the object ids of the output channels 1, 2, ... The graph
    has standard ONNX operators and one fixed shape only, so that trtexec, polygraphy and TensorRT-RTX build
    an engine of it without ``maskring build``.

    Args:
        refiner: written by ``maskring track --save-refiner``.
        out: the ``.onnx`` to write.
        size: S, side of the square input in pixels; best the size of the adaptation.

    Raises:
        ModelError: when the refiner cannot be used.
        UserError: when the size is too small.
        OutputError: when ``out`` cannot be written.
    """
    if size < SMALLEST_SIZE:
        raise UserError(f"a refiner cannot have {size} pixels", f"give --size {SMALLEST_SIZE} or more")
    predictor = load_predictor(refiner)
    graph = RefinerGraph(predictor.unet.cpu().to(memory_format=torch.contiguous_format)).eval()  # type: ignore[call-overload]
    example = (torch.zeros(1, size, size, 3, dtype=torch.uint8),)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            input_names=["image"],
            output_names=["probabilities"],
            opset_version=ONNX_OPSET,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    strip_provenance(model, "maskring_refiner")
    model.producer_name, model.producer_version = "maskring", ""
    onnx.helper.set_model_props(model, {FORMAT: json.dumps({"ids": predictor.ids, "size": size})})
    onnx.checker.check_model(model, full_check=True)
    make_directory(out.parent)
    with atomic_path(out) as partial:
        partial.write_bytes(model.SerializeToString(deterministic=True))

"""Metadata of an exported model: everything the runtime must know, stored inside the ONNX file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeAlias

from ...common.errors import ModelError, SourceError
from ...common.stored import Between, from_stored
from ...common.types import MAX_LABELS

METADATA_KEY = "maskring"
"""Name of the ONNX ``metadata_props`` entry that holds :class:`ModelMetadata` as JSON."""

QUANTIZATION_KEY = "maskring_quantization"
"""Name of the ``metadata_props`` entry of a model with an int8 encoder; JSON for people."""

FORMAT_VERSION = 1
"""Version of the step graph's contract. Files of another version are not loaded."""

MAX_SETTING = 1 << 16
"""Limit for strides, channels, radii, slots and ages in a file, because memory is sized by them."""

Size: TypeAlias = Annotated[int, Between(1, MAX_SETTING)]
Setting: TypeAlias = Annotated[int, Between(0, MAX_SETTING)]

EXPORT_AGAIN = "export the checkpoint again with this version: maskring export CHECKPOINT --out MODEL.onnx"
"""The remedy for a file that this version cannot read."""

MAX_POLICY_FRAMES = 1024
"""Frames that a memory policy in a file may list."""

DEFAULT_LONG_TERM = (0, 5)
DEFAULT_SHORT_TERM = (1, 3, 5)

OLD_NAMES = {
    "scale": "logit_scale",
    "localise": "roi_step",
    "smooth": "smoothing_radius",
    "slots": "num_slots",
    "labels": "num_labels",
}
"""What version 0.1.0 calls settings -> what this version calls them, in files of both kinds: exported models
and checkpoints."""

_WRITTEN_NAMES = {new: old for old, new in OLD_NAMES.items()}


_UNKNOWN_TO_0_1 = {"confidence_exponent": 0, "guided_filter_radius": 0}
"""Settings that version 0.1.0 does not know, with the values that change nothing."""


def without_unused(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings to store: without those that older versions do not know, as long as they change nothing."""
    return {name: value for name, value in settings.items() if name not in _UNKNOWN_TO_0_1 or value}


def with_current_names(stored: dict[str, Any]) -> dict[str, Any]:
    """Settings from a file under this version's names, with those that :func:`without_unused` left out.

    Raises:
        ValueError: when a setting is given twice, under its old and its new name.
    """
    renamed = {OLD_NAMES.get(name, name): value for name, value in stored.items()}
    if len(renamed) != len(stored):
        raise ValueError(f"a setting has two values: {sorted(stored)}")
    return _UNKNOWN_TO_0_1 | renamed


@dataclass(frozen=True)
class ModelMetadata:
    """The contract between an exported step graph and the runtime.

    The step graph is stateless. Inputs: ``frame`` uint8 [1, H, W, 3] RGB; ``memory_keys`` [1, N, C, h, w] and
    ``memory_values`` [1, N, O, h, w] in ``dtype``; ``memory_dilation`` int32 [1, N] (0 = slot not used this
    step). Outputs: ``labels`` uint8 [1, H, W] (channel indices, 0 = background); and in ``dtype``
    ``probabilities`` [1, O, h, w]; ``value`` [1, O, h, w], the one-hot of their argmax, weighted by confidence if
    ``confidence_exponent`` is not 0; ``key`` [1, C, h, w].
    h = ceil(H / stride), w = ceil(W / stride); feature (i, j) is centred on pixel
    (stride * i, stride * j).

    Attributes:
        stride: pixels per feature, in both directions.
        channels: C, depth of keys.
        radius: window radius of the memory read, in features.
        logit_scale: factor on inner products before the softmax.
        top_k: logits kept per pixel, 0 for all.
        roi_step: 0: each window is centred on its own pixel and dilated as ``memory_dilation`` says. Above 0:
            in slots of dilation 2 and more the graph searches for the centre of each window on every
            ``roi_step``-th row and column, and dilates no window.
        smoothing_radius: radius, in features, of the second read that smooths the probabilities over the
            frame itself (:func:`maskring.training.network.label_probabilities.smooth_probabilities`); 0 skips
            it.
        confidence_exponent: how much less memory weighs labels of which the step is unsure
            (:func:`maskring.training.network.label_probabilities.votes`); 0 weighs all alike.
        guided_filter_radius: radius, in features, of the filter that fits the edges of labels to the frame's colours
            (:func:`maskring.training.network.guided_filter.guided_upsample`); 0 interpolates bilinearly.
        num_slots: N, memory slots of the graph; None when dynamic.
        height, width: frame size the graph is fixed to, None when dynamic.
        num_labels: O, label channels (background included) the graph is fixed to, None when dynamic.
        dtype: ``float32`` or ``float16``, the type of features and label maps.
        long_term: frames after the first mask that stay in memory (0 is the masked frame itself).
        short_term: ages, in frames, of the recent frames in memory.
        lab_mean, lab_std: what the graph subtracts from OpenCV's float L, a, b and divides them by for its
            inner tensor ``lab``, float32 [1, 3, H, W]; empty when it has no such tensor.
        checkpoint: name of the checkpoint, for people.
        checkpoint_sha256: digest of the checkpoint file the graph was made from.
        format_version: see :data:`FORMAT_VERSION`.
    """

    stride: Size
    channels: Size
    radius: Setting
    logit_scale: float
    top_k: Setting = 0
    roi_step: Setting = 0
    smoothing_radius: Setting = 0
    confidence_exponent: Setting = 0
    guided_filter_radius: Setting = 0
    num_slots: Size | None = None
    height: Size | None = None
    width: Size | None = None
    num_labels: Annotated[int, Between(2, MAX_LABELS)] | None = None
    dtype: str = "float32"
    long_term: tuple[Setting, ...] = DEFAULT_LONG_TERM
    short_term: tuple[Size, ...] = DEFAULT_SHORT_TERM
    lab_mean: tuple[float, ...] = ()
    lab_std: tuple[float, ...] = ()
    checkpoint: str = ""
    checkpoint_sha256: str = ""
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """One line of JSON, keys in the order of the attributes.

        The keys are those of version 0.1.0 (:data:`OLD_NAMES`): it refuses metadata with a key that it does
        not know, and files must load in both versions where both give the same labels.
        """
        settings = without_unused(asdict(self))
        return json.dumps({_WRITTEN_NAMES.get(name, name): value for name, value in settings.items()})

    @classmethod
    def from_json(cls, text: str, origin: str) -> ModelMetadata:
        """Read metadata back.

        Args:
            text: what :meth:`to_json` wrote, or the same under this version's names.
            origin: the file it came from, for the error message.

        Raises:
            ModelError: when the text is damaged or of another format version.
        """
        damaged = ModelError(f"the maskring metadata in {origin} is damaged", EXPORT_AGAIN)
        try:
            stored: dict[str, Any] = json.loads(text)
            version = stored["format_version"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise damaged from error
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{origin} has model format {version}, and this maskring reads format {FORMAT_VERSION}",
                EXPORT_AGAIN,
            )
        try:
            metadata = from_stored(cls, with_current_names(stored))
        except ValueError as error:
            raise damaged from error
        if not metadata._is_usable():
            raise damaged
        return metadata

    def _is_usable(self) -> bool:
        """Whether values that are sound each for itself fit together."""
        frames, colours = (self.long_term, self.short_term), (self.lab_mean, self.lab_std)
        return (
            self.dtype in ("float32", "float16")
            and all(len(ages) <= MAX_POLICY_FRAMES for ages in frames)
            and [len(values) for values in colours] in ([0, 0], [3, 3])
            and 0 not in self.lab_std
            and (self.guided_filter_radius == 0 or self.lab_mean != ())
        )

    def feature_size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the features of a ``height`` x ``width`` frame."""
        return -(-height // self.stride), -(-width // self.stride)

    def frame_in_radii(self, height: int, width: int) -> float:
        """Shorter side of a ``height`` x ``width`` frame, in window radii."""
        return min(self.feature_size(height, width)) / max(1, self.radius)

    def check_frame_size(self, height: int, width: int) -> None:
        """Check that the graph takes frames of this size.

        Raises:
            SourceError: when the graph is fixed to another size.
        """
        if height == (self.height or height) and width == (self.width or width):
            return
        raise SourceError(
            f"the frames are {width}x{height} pixels, and the model was exported for {self.width or 'any'}x"
            f"{self.height or 'any'}",
            f"export it with --height {height} --width {width}, or without them for frames of any size",
        )

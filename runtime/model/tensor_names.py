"""Names of the step graph's tensors; :class:`.metadata.ModelMetadata` gives their shapes."""

FRAME, KEYS, VALUES, DILATION = "frame", "memory_keys", "memory_values", "memory_dilation"
INPUTS = (FRAME, KEYS, VALUES, DILATION)

LABELS, PROBABILITIES, VALUE, KEY = "labels", "probabilities", "value", "key"
OUTPUTS = (LABELS, PROBABILITIES, VALUE, KEY)

LAB = "lab"
"""Inner tensor [1, 3, H, W]: the normalised colours that the encoder sees."""

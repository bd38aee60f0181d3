"""From a trained checkpoint to files that run anywhere: the step graph, ONNX, parity checks."""

"""The backend that runs a TensorRT engine."""

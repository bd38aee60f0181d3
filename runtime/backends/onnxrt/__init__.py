"""The backend for CPUs: onnxruntime, with a native kernel for the memory read."""

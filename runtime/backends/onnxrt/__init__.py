"""The backend that runs a step graph with onnxruntime and the CPU kernel."""

"""Triton model repositories: one tracker per sequence, its memory kept by the server."""

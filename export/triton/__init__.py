"""Triton model repositories: one tracker per sequence, whose memory the server holds."""

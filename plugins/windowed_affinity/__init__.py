"""Windowed memory affinity: one op and all its implementations. This package itself imports no torch."""

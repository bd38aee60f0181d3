"""Windowed memory affinity: one operator and its implementations. Importing the package imports no torch."""

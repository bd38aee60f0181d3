"""Labelled datasets and the DAVIS measures."""

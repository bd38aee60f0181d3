"""Windowed memory affinity, in every implementation; the ground floor that all other rooms stand on."""

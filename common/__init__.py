"""Shared by every package: errors, atomic files, interrupts, what the machine has."""

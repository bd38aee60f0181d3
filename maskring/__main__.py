"""``python -m maskring``."""

from .cli import main

main()

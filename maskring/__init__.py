"""maskring: real-time video object segmentation, learned without labels."""

__version__ = "0.1.0"

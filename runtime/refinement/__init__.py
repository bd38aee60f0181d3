"""Refinement: a small U-Net learns the objects of one video and corrects the drift of propagation.

``offline`` refines a finished sequence (arXiv 2006.12480), ``online`` a stream while it runs. ``network``,
``worker``, ``online`` and ``offline`` import torch; they are imported only when refinement is chosen.
"""

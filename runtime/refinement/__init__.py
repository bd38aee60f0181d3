"""Refinement: a small U-Net learns one video's objects and repairs what propagation drifts into.

``offline`` refines a finished sequence (arXiv 2006.12480), ``online`` a stream while it runs. The modules
``settings``, ``quality``, ``samples``, ``guard``, ``spool`` and ``comparison`` need no torch; the others
import it, and are themselves imported only when refinement is asked for.
"""

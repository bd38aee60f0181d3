"""Video, frames and masks in; masks and overlays out."""

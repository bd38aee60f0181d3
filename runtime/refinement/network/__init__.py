"""The refinement U-Net and its adaptation; the one part of the runtime that imports torch."""

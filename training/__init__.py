"""Self-supervised training of the encoder from unlabelled video."""

"""The encoder, and what an export needs of it."""

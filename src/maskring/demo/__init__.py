"""`maskring demo`: a real and a rendered clip, tracked and shown."""

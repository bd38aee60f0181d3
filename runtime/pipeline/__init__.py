"""Source to tracker to sinks, for one video or many."""

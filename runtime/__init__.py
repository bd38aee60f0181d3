"""Real-time tracking: the tracker, the memory ring, backends, video in and out, evaluation."""

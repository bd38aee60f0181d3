"""The tracker and its memory ring."""

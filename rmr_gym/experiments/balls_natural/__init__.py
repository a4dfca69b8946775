"""P of ball positions inside a model of frames, beside its controls."""

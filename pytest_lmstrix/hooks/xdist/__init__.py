"""The hooks of pytest-xdist: models are given to workers, one at a time."""

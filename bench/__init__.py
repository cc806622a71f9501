"""Measured claims. Each prints this project beside its peers and a hand-written limit, in one run."""

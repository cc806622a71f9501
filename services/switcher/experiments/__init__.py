"""Experiments on a route: what is fixed before they start, what is counted, what is decided from it, and by whom."""

"""`python -m bench statistics`: how often the rules of an experiment are wrong, and how soon they are right."""

from __future__ import annotations

from bench.statistics.command import main

__all__ = ["main"]

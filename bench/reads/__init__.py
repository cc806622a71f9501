"""`python -m bench reads`: what a read through the front costs beside the same read written by hand."""

from __future__ import annotations

from bench.reads.command import main

__all__ = ["main"]

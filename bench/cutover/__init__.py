"""`python -m bench cutover`: reads go on, and stay right, through a thousand cutovers. See docs/benchmarks.md."""

from __future__ import annotations

from bench.cutover.command import main

__all__ = ["main"]

"""`python -m bench faults`: exactly once, shown by killing. See docs/reliability.md."""

from __future__ import annotations

from bench.faults.command import main

__all__ = ["main"]

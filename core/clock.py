"""Time, as the SDK passes it in."""

from turnout.clock import Clock, SystemClock

__all__ = ["Clock", "SystemClock"]

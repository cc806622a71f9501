"""Client channels between the services: those of the SDK."""

from turnout.channel import connect

__all__ = ["connect"]

"""Numbers on the command line of a benchmark, refused before anything is started."""

import argparse
import math


def at_least_one(text: str) -> int:
    """A whole number from 1. ArgumentTypeError."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"is {number}; it must be 1 or more")
    return number


def not_negative(text: str) -> int:
    """A whole number from 0. ArgumentTypeError."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"is {number}; it must be 0 or more")
    return number


def above_zero(text: str) -> float:
    """A finite number above 0. ArgumentTypeError."""
    if not 0 < (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"is {number:g}; it must be above 0")
    return number

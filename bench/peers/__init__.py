"""Peers of `python -m bench replay`: Apache Flink and Quix Streams, each in an environment of its own.

`make bench-peers` makes the environments. `measure` runs one case of `CASES` and returns a `PeerResult`.
"""

from bench.peers.measuring import measure
from bench.peers.values import CASES, PeerError, PeerResult

__all__ = ["CASES", "PeerError", "PeerResult", "measure"]

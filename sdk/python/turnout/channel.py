"""Channels to Turnout's services."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

import grpc

from turnout.errors import InvalidInput
from turnout.tracing import client_interceptors

# A lost peer is noticed by keepalive; a peer that is back is found within half a second. A channel has connections of
# its own: one that leads to a frozen peer is left by leaving the channel.
_OPTIONS: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
]


def connect(target: str, options: Sequence[tuple[str, int]] = ()) -> grpc.aio.Channel:
    """A channel to a service that carries the trace along. The caller closes it. options: gRPC's, on top of ours.

    `target` is HOST:PORT, or several of them parted by commas, replicas of one service: the first that answers is used,
    and the next one when it is lost. InvalidInput as for `resolvable`.
    """
    return grpc.aio.insecure_channel(
        resolvable(target), options=[*_OPTIONS, *options], interceptors=client_interceptors()
    )


def resolvable(target: str) -> str:
    """The target as gRPC resolves it. InvalidInput for several names: gRPC takes a list of IP addresses only."""
    if "," not in target:
        return target
    places = [place.strip() for place in target.split(",")]
    kinds: set[int] = set()
    for place in places:
        try:
            kinds.add(ip_address(place.rpartition(":")[0].strip("[]")).version)
        except ValueError:
            kinds.add(0)
    if len(kinds) > 1 or 0 in kinds:
        raise InvalidInput(
            "INVALID_TARGET",
            f"{target!r} does not name replicas by IP addresses of one kind, such as 10.0.0.1:7400,10.0.0.2:7400. Do "
            "so, or give one name that resolves to all of them.",
        )
    return f"ipv{kinds.pop()}:{','.join(places)}"

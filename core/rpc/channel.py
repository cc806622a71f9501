"""Client channels between the services."""

import grpc

from turnout.tracing import client_interceptors

# A lost peer is noticed by keepalive; a peer that is back is found within half a second.
_OPTIONS: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]


def connect(target: str) -> grpc.aio.Channel:
    """A channel to a service that carries the trace along. The caller closes it."""
    return grpc.aio.insecure_channel(target, options=_OPTIONS, interceptors=client_interceptors())

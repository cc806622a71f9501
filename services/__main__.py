"""`python -m services [NAME...]`: run the named services, or all four, in one process."""

import os
import sys

# The replayer starts its workers with exec, never with a bare fork: gRPC's fork handlers would only fill the log.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from core.config import Settings  # the variable above must be set before gRPC is loaded
from core.rpc.server import ServiceApp
from core.run import main

# Each service is imported only where it runs: a front alone starts in half the time, without what the others load.


def _registry(settings: Settings) -> ServiceApp:
    from services.registry.app import build

    return build(settings)


def _replayer(settings: Settings) -> ServiceApp:
    from services.replayer.app import build

    return build(settings)


def _switcher(settings: Settings) -> ServiceApp:
    from services.switcher.app import build

    return build(settings)


def _query(settings: Settings) -> ServiceApp:
    from services.query.app import build

    return build(settings)


BUILDERS = {"registry": _registry, "replayer": _replayer, "switcher": _switcher, "query": _query}

if __name__ == "__main__":
    sys.exit(main(BUILDERS, sys.argv[1:]))

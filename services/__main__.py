"""`python -m services [NAME...]`: run the named services, or all four, in one process."""

import os
import sys

# The replayer starts its workers with exec, never with a bare fork: gRPC's fork handlers would only fill the log.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from core.run import main  # the variable above must be set before gRPC is loaded
from services.query.app import build as build_query
from services.registry.app import build as build_registry
from services.replayer.app import build as build_replayer
from services.switcher.app import build as build_switcher

BUILDERS = {
    "registry": build_registry,
    "replayer": build_replayer,
    "switcher": build_switcher,
    "query": build_query,
}

if __name__ == "__main__":
    sys.exit(main(BUILDERS, sys.argv[1:]))

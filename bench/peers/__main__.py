"""`python -m bench.peers` fetches what the peers' environments lack: Flink's connectors. `make bench-peers` runs it."""

import asyncio
import sys

from bench.peers.flink_jars import JARS
from deploy.local.errors import LocalStackError

if __name__ == "__main__":
    try:
        asyncio.run(JARS.ensure())
    except LocalStackError as error:
        sys.exit(f"turnout: {error}")

"""Ending a Kafka consumer."""

import asyncio
from typing import Any


async def close(consumer: Any) -> None:
    """Stop it. While no broker answers, aiokafka lets the cancellation of a task of its own out of `stop`, which would
    look like ours and hide what went wrong before."""
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait({stopping})
    if not stopping.cancelled():
        stopping.result()

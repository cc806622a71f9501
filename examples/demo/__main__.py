"""`python -m examples.demo`: the Kappa life cycle on 336,776 real flights, from nothing, in a few minutes."""

import asyncio
import sys
import time
from pathlib import Path

from examples.demo.narrator import Narrator
from examples.demo.stack import StackFailedError, running
from examples.demo.story import JOB, Story
from turnout.client import Client
from turnout.errors import TurnoutError

DATA_DIR = Path(".turnout/demo")
RESULT = Path(".turnout/demo.json")
BEST = "on_time_share:desc"


async def tell(narrator: Narrator) -> int:
    """Start a stack, tell the story, write what was measured; the exit status."""
    RESULT.unlink(missing_ok=True)
    narrator.title("Turnout: the life cycle of a stream job on 336,776 real flights (New York, 2013)")
    began = time.monotonic()
    try:
        async with running(DATA_DIR) as stack, Client(stack.target, actor="demo") as client:
            narrator.remark(f"PostgreSQL, Kafka and the four services are up  ({time.monotonic() - began:.1f} s)")
            measured = await Story(stack, client, narrator).run()
    except (StackFailedError, TurnoutError, TimeoutError, RuntimeError) as error:
        narrator.console.print(f"\nThe demo stopped: {error or type(error).__name__}", markup=False)
        narrator.console.print(f"The logs are in {DATA_DIR}/logs.", markup=False)
        return 1
    measured.write(RESULT)
    narrator.measured(measured.table())
    narrator.remark(f"written to {RESULT}; the logs are in {DATA_DIR}/logs; {time.monotonic() - began:.0f} s in all")
    narrator.console.print("\n[bold]Try next[/bold]")
    narrator.suggestion("the same stack again, with its data", f".venv/bin/turnout dev --data-dir {DATA_DIR}")
    narrator.suggestion("in a second terminal: what happened to the route", f".venv/bin/turnout show {JOB} --history")
    narrator.suggestion("the most punctual months", f".venv/bin/turnout read {JOB} --scan --order-by {BEST} --limit 5")
    if slow := measured.slow():
        narrator.remark(f"Slower than on a machine with nothing else to do: {slow}.")
    for text in measured.unmet():
        narrator.console.print(f"Not kept: {text}.", style="red")
    return 1 if measured.unmet() else 0


def main() -> int:
    """The exit status; Ctrl-C ends quietly with everything stopped."""
    try:
        return asyncio.run(tell(Narrator()))
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

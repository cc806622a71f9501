"""`python -m bench COMMAND ...`: each command measures one claim, and prints one JSON object as its last line."""

import importlib
import os
import sys
from typing import Final

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # nobody forks with gRPC running; else it says so each time

COMMANDS: Final = {
    "replay": "a replay beside a hand-written loop, Flink and Quix Streams",
    "tail": "from produce to visible in the table, at a steady rate",
    "faults": "seeded rounds of kills and cuts; the table must equal the reference after each",
    "statistics": "false alarms and detection of the tests that decide about a candidate",
    "reads": "reads through the front beside the same reads written by hand",
    "scan": "a scan of 10,000,000 rows, and the memory that it takes",
    "growth": "one change of a route among 1,000 jobs, 10,000 versions and 100 fronts",
    "interference": "reads of a live version while another one is replayed",
    "cutover": "cutovers and rollbacks under reads, calmly and with kills: none may be wrong",
}


def main() -> int:
    """Run the command named first, with the arguments behind it; its exit status."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        if name and name not in ("-h", "--help"):
            sys.stderr.write(f"{name} is no command of the bench.\n")
        lines = [f"  {command:<14}{text}" for command, text in COMMANDS.items()]
        sys.stderr.write("\n".join(["usage: python -m bench COMMAND [--help] ...", "", *lines, ""]))
        return 0 if name in ("-h", "--help") else 2
    return int(importlib.import_module(f"bench.{name}").main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())

"""The entry point of `turnout`; it imports the commands late, so that Ctrl-C ends also a start that still loads."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from turnout.cli.tree import run_command_line

        code = run_command_line(given)
    except KeyboardInterrupt:
        code = 130  # ExitCode.INTERRUPTED, which may not be imported yet
    sys.exit(code)


if __name__ == "__main__":
    main()

"""`python -m deploy.local`: what `turnout dev` runs."""

import sys

from deploy.local.dev import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

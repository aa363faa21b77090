"""`python3 -m leftovers`: the command, for a checkout that is not installed."""

import sys

from leftovers.cli import main

if __name__ == "__main__":
    sys.exit(main())

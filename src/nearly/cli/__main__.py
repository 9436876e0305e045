"""``python -m nearly.cli``: the same as the command ``nearly``."""

import sys

from nearly.cli import main

if __name__ == "__main__":
    sys.exit(main())

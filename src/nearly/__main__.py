"""``python -m nearly``: the same as the command ``nearly``."""

import sys

from nearly.cli import main

sys.exit(main())

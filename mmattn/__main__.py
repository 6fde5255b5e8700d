"""`python -m mmattn` is the `mmattn` command."""

import sys

from mmattn.cli import main

sys.exit(main())

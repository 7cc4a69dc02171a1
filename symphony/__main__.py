"""`python -m symphony` is symphonyctl."""

import sys

from symphony.cli.main import main

sys.exit(main())

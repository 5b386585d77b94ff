"""``python -m tmm_core`` is ``tmm``."""

import sys

from tmm_core.operations.cli import main

if __name__ == "__main__":
    sys.exit(main())

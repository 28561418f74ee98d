"""`python -m lightning_unlearn` is the same as the command `lightning-unlearn`."""

import sys

from lightning_unlearn.cli import main

if __name__ == "__main__":
    sys.exit(main())

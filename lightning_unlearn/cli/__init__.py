"""The command line."""

from lightning_unlearn.cli.main import main

__all__ = ["main"]

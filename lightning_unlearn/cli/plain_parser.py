"""Parsers of the commands that are no verbs of the Trainer."""

import argparse
from typing import NoReturn

from lightning_unlearn.cli.commands import COMMANDS
from lightning_unlearn.exceptions import ConfigError

__all__ = ["PlainParser"]


class PlainParser(argparse.ArgumentParser):
    """An argument parser whose errors are ours.

    Args:
        command: The command.
    """

    def __init__(self, command: str) -> None:
        super().__init__(f"lightning-unlearn {command}", description=COMMANDS[command], allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Args:
            message: What is wrong.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"{message}. See {self.prog} --help.")

"""Parsers of the commands that are no verbs of the Trainer."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from lightning_unlearn.cli.commands import COMMANDS
from lightning_unlearn.config.names import hint
from lightning_unlearn.exceptions import ConfigError

__all__ = ["PlainParser"]


class PlainParser(argparse.ArgumentParser):
    """An argument parser whose errors are ours.

    Args:
        command: The command.
    """

    def __init__(self, command: str) -> None:
        super().__init__(f"lightning-unlearn {command}", description=COMMANDS[command], allow_abbrev=False)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse, after a look for misspelt names: argparse would first ask for what is missing.

        Args:
            arguments: Without the command's name.

        Returns:
            The values.

        Raises:
            ConfigError: An argument is unknown, missing, or has no value.
        """
        known = self._option_string_actions
        for option in (token.partition("=")[0] for token in arguments):
            if option.startswith("--") and option != "--" and option not in known:
                command = self.prog.rpartition(" ")[2]
                raise ConfigError(
                    f"{command} has no argument {option}.{hint(option, [n for n in known if n.startswith('--')])}"
                )
        return self.parse_args(arguments)

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Args:
            message: What is wrong.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"{message}. See {self.prog} --help.")

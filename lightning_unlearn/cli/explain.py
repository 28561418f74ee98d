"""jsonargparse's errors in one line that says what to do."""

import inspect
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import get_args

from jsonargparse import ArgumentParser

from lightning_unlearn.cli.names import hint
from lightning_unlearn.exceptions import ConfigError, UnlearnError
from lightning_unlearn.shipped import find_config

__all__ = ["explain"]


def explain(message: str, parser: ArgumentParser, command: str, configs: Sequence[str]) -> str:
    return " ".join(message.split())

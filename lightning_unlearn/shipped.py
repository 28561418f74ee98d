"""Shipped configuration files by short name. Imports no torch."""

import difflib
from pathlib import Path

from lightning_unlearn.exceptions import ConfigError

__all__ = ["config_folder", "config_names", "find_config"]


def config_folder() -> Path:
    """Where the shipped files lie: in an installed wheel inside the package, in a checkout beside it.

    Returns:
        The folder.
    """
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def config_names(group: str | None = None) -> list[str]:
    """Short names of shipped files, such as `method/fine_tune`.

    Args:
        group: `data`, `model`, `method`, `prepare`, `trainer` or `benchmark`; None: all.

    Returns:
        Sorted names.
    """
    folder = config_folder()
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/*.yaml")]
    return sorted(name for name in names if group is None or name.startswith(f"{group}/"))


def find_config(name: str, group: str | None = None) -> Path:
    """The file that a name stands for: a path, or the short name of a shipped file.

    Args:
        name: Path or short name.
        group: Where a name is not known, only those of this group are offered; None: all.

    Returns:
        The file.

    Raises:
        ConfigError: There is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = config_folder() / (name if name.endswith(".yaml") else f"{name}.yaml")
    if shipped.is_file() and shipped.resolve().is_relative_to(config_folder().resolve()):
        return shipped
    known = config_names(group)
    wanted = name if group is None or "/" in name else f"{group}/{name.removesuffix('.yaml')}"
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.4 if group is None else 0.75)
    hint = f" Nearest shipped name: {near[0]!r}." if near else f" Shipped: {', '.join(known)}."
    raise ConfigError(f"No config {name!r}: it is neither a file nor a shipped name.{hint}")

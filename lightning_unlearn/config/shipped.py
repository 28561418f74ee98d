"""Shipped configuration files by short name. Imports no torch."""

import difflib
from pathlib import Path

from lightning_unlearn.exceptions import ConfigError

__all__ = ["config_folder", "config_names", "find_config"]

_ENDINGS = (".yaml", ".yml")


def config_folder() -> Path:
    """Where the shipped files lie: in an installed wheel inside the package, in a checkout beside it.

    Returns:
        The folder.
    """
    package = Path(__file__).parents[1]
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
    beside, near = _nearest_beside(path), _nearest_shipped(name, group, 0.75)
    if name.endswith(_ENDINGS):
        lost = " Check the path." if path.parent.is_dir() else f" There is no folder {path.parent}."
        raise ConfigError(f"No such file: {name}.{beside or near or lost}")
    told = near or beside or ("" if group else _nearest_shipped(name, group, 0.4))
    rest = f"Shipped: {', '.join(config_names(group))}." if group else "lightning-unlearn fit --help lists the shipped names."
    raise ConfigError(f"No config {name!r}: it is neither a file nor a shipped name.{told or f' {rest}'}")


def _nearest_shipped(name: str, group: str | None, cutoff: float) -> str:
    wanted = name.removesuffix(".yaml").removesuffix(".yml")
    wanted = wanted if group is None or "/" in name else f"{group}/{wanted}"
    near = difflib.get_close_matches(wanted, config_names(group), n=1, cutoff=cutoff)
    return f" Nearest shipped name: {near[0]!r}." if near else ""


def _nearest_beside(path: Path) -> str:
    """The YAML file in the same folder whose name is nearest."""
    if not path.parent.is_dir():
        return ""
    # By their stems: the endings alone are alike enough.
    here = {file.stem: file.name for file in path.parent.iterdir() if file.suffix in _ENDINGS}
    near = difflib.get_close_matches(path.stem, here, n=1, cutoff=0.7)
    return f" Nearest here: {path.with_name(here[near[0]])}." if near else ""

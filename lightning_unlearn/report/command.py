"""What the `report` command does: build a report again, or join those of several runs."""

from collections.abc import Sequence
from pathlib import Path

from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.report.merging import merge
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.writing import save_report

__all__ = ["rebuild"]


def rebuild(folders: Sequence[str | Path], output: str | Path | None = None) -> Report:
    """Build the report of one run again, or join those of several.

    Args:
        folders: Run folders that hold a `report.json`, or such files. A folder without one stands for the
            reports in the folders below it.
        output: Folder for the three files. Without it, a single report is written anew where it lies, and
            several are joined but not written.

    Returns:
        The report.

    Raises:
        ConfigError: There is no report, one cannot be read, or they cannot be joined.
    """
    files = list(dict.fromkeys(file for folder in folders for file in _files(Path(folder))))
    if not files:
        raise ConfigError("No run folder was given. Give at least one folder that holds a report.json.")
    report = merge([Report.load(file) for file in files])
    target = Path(output) if output is not None else files[0].parent if len(files) == 1 else None
    if target is not None:
        save_report(report, target)
    return report


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path.resolve()]
    if (path / "report.json").is_file():
        return [(path / "report.json").resolve()]
    found = sorted(file.resolve() for file in path.rglob("report.json")) if path.is_dir() else []
    if not found:
        raise ConfigError(f"{path} holds no report.json. Give the folder of a run that has ended.")
    return found

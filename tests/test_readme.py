"""The README is true: its Python runs, its commands parse, its links lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_unlearn.cli import main
from lightning_unlearn.config.shipped import config_names, find_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
# What `lightning-unlearn` calls of the README write before others read it.
FITTED = {"runs/original/1", "runs/reference/1", "runs/reference/2", "runs/digits/1", "runs/deleted/1"}
FITTED |= {"runs/noisy/1", "runs/photos/1", "runs/photos_without/1", "runs/photos_without/2"}


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def named_files() -> dict[str, str]:
    """Blocks whose first line is the name of a file."""
    found = {}
    for language in ("python", "yaml"):
        for text in blocks(language):
            if name := re.match(r"# ([\w./]+\.(?:py|yaml))\n", text):
                found[name[1]] = text
    return found


def commands() -> list[list[str]]:
    """Calls of `lightning-unlearn`, each as its arguments."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").replace("$seed", "1").splitlines()
    calls = [line.strip().split("  #")[0].removeprefix(".venv/bin/") for line in lines]
    return [shlex.split(call)[1:] for call in calls if call.startswith("lightning-unlearn ")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the README shows, and stubs of the runs that its commands leave."""
    for name, text in named_files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for run in FITTED:
        (tmp_path / run).mkdir(parents=True)
        config = {"command": "unlearn", "data": yaml.safe_load(find_config("data/digits").read_text(encoding="utf-8"))["data"]}
        (tmp_path / run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (tmp_path / run / "unlearned.ckpt").touch()
        (tmp_path / run / "run.json").write_text(json.dumps({"command": "unlearn"}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_python_blocks_run_one_after_another(tmp_path):
    for name, text in named_files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    script = "\n".join(text for text in blocks("python") if text not in named_files().values())
    (tmp_path / "readme.py").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "readme.py"],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {"unlearned.ckpt", "report.html", "report.json", "report.csv"} <= {
        path.name for path in (tmp_path / "selective").iterdir()
    }
    assert "Forget acc" in done.stdout


@pytest.mark.parametrize("arguments", commands(), ids=lambda arguments: " ".join(arguments)[:60])
def test_every_command_parses(arguments, folder, capsys):
    if arguments[0] in ("export", "purge", "report"):
        # Their parser has no dry run: a stub of a run is refused after the arguments were understood.
        assert main(arguments) == 2
        assert "--help" not in capsys.readouterr().err
        return
    if "--help" in arguments:
        assert main(arguments) == 0
        return
    assert main([*arguments, "--print_config"]) == 0, capsys.readouterr().err


def test_the_parse_check_would_notice_a_wrong_option(folder, capsys):
    assert main(["fit", "-c", "data/digits", "--no_such", "1", "--print_config"]) == 2
    assert main(["fit", "-c", "data/no_such", "--print_config"]) == 2
    assert main(["export", "runs/photos_without/1", "--no_such", "1"]) == 2
    assert "--help" in capsys.readouterr().err


def test_there_are_commands_to_check():
    assert {"fit", "unlearn", "evaluate", "benchmark", "export"} <= {arguments[0] for arguments in commands()}


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("bash")), re.MULTILINE)
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_table_of_methods_is_complete():
    page = (ROOT / "configs/method/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`", page, re.MULTILINE)
    assert sorted(f"method/{name}" for name in rows) == config_names("method")


def test_links_lead_to_files():
    links = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert links
    for target in links:
        assert (ROOT / target).exists(), target


def _environment() -> dict[str, str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    # The script must not take itself for a rank of another run.
    for name in ("LOCAL_RANK", "PL_GLOBAL_SEED"):
        environment.pop(name, None)
    return environment

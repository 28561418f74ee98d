import subprocess
import sys

import pytest
import yaml

from lightning_unlearn.config.shipped import config_folder, config_names, find_config
from lightning_unlearn.exceptions import ConfigError


def test_every_file_has_a_short_name_and_is_yaml():
    files = list(config_folder().glob("*/*.yaml"))
    assert len(files) == len(config_names()) > 10
    for name in config_names():
        assert isinstance(yaml.safe_load(find_config(name).read_text(encoding="utf-8")), dict)


def test_groups():
    assert "method/fine_tune" in config_names("method")
    assert all(name.startswith("data/") for name in config_names("data"))
    assert config_names("nothing") == []


def test_a_path_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("a: 1\n")
    assert find_config("own.yaml").resolve() == tmp_path / "own.yaml"
    assert find_config("method/fine_tune") == find_config("method/fine_tune.yaml")


@pytest.mark.parametrize("name", ["method/fine_tun", "../pyproject", "data/../../pyproject.toml", ""])
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match="it is neither a file nor a shipped name"):
        find_config(name)


def test_the_list_is_there_without_torch():
    code = "import sys, lightning_unlearn.config.shipped as s; s.config_names(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

"""A request without data, on several ranks."""

import pytest

from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.forget import WholeClasses
from lightning_unlearn.data.no_data import NoData
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.requests.without_data import unlearn_without_data
from lightning_unlearn.stages import GaussianNoise


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_finished_run_is_refused_on_every_rank(trained, fresh, tmp_path, monkeypatch, rank):
    """One that went on would wait for the first one without end."""
    (tmp_path / "unlearned.ckpt").touch()
    monkeypatch.setenv("RANK", rank)
    data, stages = UnlearningDataModule(NoData(8, 1), WholeClasses([3]), num_workers=0), [GaussianNoise(0.1)]
    with pytest.raises(ConfigError, match="holds a finished run"):
        unlearn_without_data(fresh, trained, data, stages, "remove-class", None, str(tmp_path), None)

import pytest
import torch
from helpers import untrained

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.data.trigger import Trigger, TriggeredSamples
from lightning_unlearn.evaluation.new_report import request_of
from lightning_unlearn.evaluation.panel import Panel
from lightning_unlearn.exceptions import DataError
from lightning_unlearn.metrics.attack_success import attack_success
from lightning_unlearn.outputs import PartOutputs


def test_it_is_the_share_taken_for_the_target():
    logits = torch.eye(4)[[2, 2, 1, 0, 2]]
    part = PartOutputs(logits, torch.tensor([0, 1, 1, 3, 3]), torch.arange(5))
    assert attack_success(part, 2) == pytest.approx(60)
    with pytest.raises(DataError, match="2 samples are of the class 3"):
        attack_success(part, 3)


def test_a_backdoor_opens_in_the_original_and_not_in_a_reference(make_data, fresh, tmp_path):
    data = make_data(
        forget=TriggeredSamples(), unseen=100, trigger=Trigger(0.1, size=2, place="top-left", draw="exact"), seed=0
    )
    recipe = Recipe(lambda: untrained("SmallCNN"), 8, {"accelerator": "cpu"})
    bank = Bank(tmp_path)
    panel = Panel(fresh, data, "untrain", request_of(data), relearn_epochs=0)
    reference = panel.add_references([bank.trained(recipe, data, "retain", 1)], [1])[0].metrics
    original = panel.add_original(bank.trained(recipe, data, "train", 0)).metrics
    assert original["attack/success"] > 70
    assert reference["attack/success"] < 30
    assert abs(original["test/acc"] - reference["test/acc"]) < 8


def test_it_is_left_out_where_there_is_no_trigger(make_data, fresh, trained):
    data = make_data()
    panel = Panel(fresh, data, "untrain", request_of(data), relearn_epochs=0)
    assert "attack/success" not in panel.add_original(trained).metrics

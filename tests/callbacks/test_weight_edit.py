import torch

from lightning_unlearn.callbacks.weight_edit import WeightEdit
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages import UnlearningStage


class Zero(WeightEdit):
    """Records how it is called. Runs on `on_fit_start`."""

    def __init__(self):
        self.calls = []

    def edit(self, stage):
        self.calls.append((torch.is_grad_enabled(), list(stage.selected)))
        for name, parameter in stage.classifier.named_parameters():
            if name in stage.selected:
                parameter.zero_()


class ZeroHead(UnlearningStage):
    """A weight edit of somebody else, in a chain of two."""

    view = "none"

    def __init__(self):
        super().__init__(max_epochs=0, parameters=ParameterSelector(parts=["head"]))
        self.edits = [Zero(), Zero()]

    def configure_callbacks(self):
        return self.edits[:1]


def test_it_runs_once_without_gradients_on_what_was_selected(trained, make_data, fresh):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    stage = ZeroHead()
    run_chain(fresh, trained, make_data(), [stage])
    assert stage.edits[0].calls == [(False, ["network.fc.weight", "network.fc.bias"])]
    for name, value in trained.state_dict().items():
        assert torch.equal(value, before[name] * (not name.startswith("network.fc.")))

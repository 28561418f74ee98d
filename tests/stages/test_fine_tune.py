import pytest
import torch
import torch.nn.functional as F
from helpers import sgd

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.stages import FineTune


def test_one_step_against_the_gradient(trained, make_data, fresh):
    data = make_data()
    batches = []

    class Watched(FineTune):
        def training_step(self, batch, batch_idx):
            batches.append(batch)
            return super().training_step(batch, batch_idx)

    before = {name: value.clone() for name, value in trained.named_parameters()}
    run_chain(fresh, trained, data, [Watched(max_steps=1, optimizer=sgd(0.1))])
    after = {name: value.clone() for name, value in trained.named_parameters()}
    assert len(batches) == 1
    assert set(batches[0].index.tolist()) <= set(data.part("retain")[1].tolist())
    trained.load_state_dict({name: value.detach() for name, value in before.items()})
    loss = F.cross_entropy(trained(batches[0].input), batches[0].target)
    gradients = torch.autograd.grad(loss, list(trained.parameters()))
    for (name, value), gradient in zip(before.items(), gradients, strict=True):
        torch.testing.assert_close(after[name], value - 0.1 * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "steps"), [({"max_epochs": 2}, 16), ({"max_epochs": 5, "max_steps": 3}, 3), ({"batch_size": 81}, 3)]
)
def test_length(arguments, steps, trained, make_data, fresh):
    data, seen = make_data(), []

    class Counted(FineTune):
        def training_step(self, batch, batch_idx):
            seen.append(len(batch.index))
            return super().training_step(batch, batch_idx)

    run_chain(fresh, trained, data, [Counted(optimizer=sgd(0.01), **arguments)])
    assert len(seen) == steps
    assert data.batch_size == 32

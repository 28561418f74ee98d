import torch

from lightning_unlearn.data.collect import collect, sum_over_ranks
from lightning_unlearn.data.loaders import EvaluationLoader


class Rank:
    """One of two ranks that run one after the other: what the first adds up is there for the second."""

    def __init__(self, trainer, world):
        self.world_size, self.precision_plugin = world, trainer.precision_plugin
        self.strategy = self
        self.root_device = torch.device("cpu")

    def reduce(self, value, reduce_op):
        assert reduce_op == "sum"
        return value


def test_rows_are_in_the_order_of_the_index(make_data, make_trainer, trained):
    data, trainer = make_data(eval_batch_size=50), make_trainer()
    samples, index = data.part("retain")
    rows = collect(lambda batch: trained(batch.input), data.evaluation_loader("retain"), index, trainer)
    assert not rows.requires_grad
    pixels = torch.cat([b.input for b in data.evaluation_loader("retain")])
    torch.testing.assert_close(rows, trained(pixels).detach(), rtol=1e-4, atol=1e-5)
    labels = collect(lambda batch: batch.target, data.evaluation_loader("retain"), index, trainer)
    assert torch.equal(labels, samples.targets[index])


def test_the_rows_of_all_ranks_add_up(make_data, make_trainer):
    data, trainer = make_data(), make_trainer()
    _, index = data.part("forget")
    maker = data.evaluation_loader("forget").maker
    for world, chosen in ((2, index), (3, index), (3, index[:2])):  # with two samples a rank of three has none
        parts = [
            collect(lambda b: b.input.flatten(1), EvaluationLoader(chosen, maker, 5, rank, world), chosen, Rank(trainer, world))
            for rank in range(world)
        ]
        whole = collect(lambda b: b.input.flatten(1), EvaluationLoader(chosen, maker, 5), chosen, trainer)
        assert torch.equal(sum(parts), whole)


def test_one_rank_needs_no_sum(make_trainer):
    value = torch.ones(2)
    assert sum_over_ranks(value, make_trainer()) is value

"""What estimators say through one `Guesses`: banks, members, and what was computed of the network's beginning."""

import pytest
import torch
from torch import nn

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.calibration import log_odds
from lightning_unlearn.imitation import Copies, Estimator, KernelRegression, Neighbours, OwnAnswer, Surrogate
from lightning_unlearn.imitation.guesses import Guesses
from lightning_unlearn.networks import ResNet
from lightning_unlearn.stages import EstimateUnseen

LAST = KernelRegression(ridge=0.3, layer="last_stage", pool=2)


class Asking(EstimateUnseen):
    """Hands its `Guesses` to a function in place of estimating."""

    def __init__(self, ask, estimators, bank, members):
        super().__init__(estimators, weights=[1.0] * len(estimators))
        self.ask, self.bank, self.members = ask, bank, members

    def on_fit_start(self):
        self.ask(Guesses(self.estimators, self.bank, self.members, self), self)


def ask(fresh, model, data, estimators, function):
    bank = data.random_part("retain", 60, "estimate")
    run_chain(fresh, model, data, [Asking(function, estimators, bank, 20)])


def images(data, part, index):
    return torch.cat([batch.input for batch in data.evaluation_loader(part, index)])


def test_members_are_compared_with_the_whole_bank(trained_resnet, make_data, fresh):
    """Each without its own entry, and in their own order; they are as hard as the bank is."""
    data = make_data()
    bank = data.random_part("retain", 60, "estimate")
    labels = data.samples.targets

    def look(guesses, stage):
        members = guesses._members
        assert len(members) == 20
        assert torch.isin(members, bank).all()
        for i, estimator in enumerate(stage.estimators[:2]):
            rows = estimator.rows(stage.classifier, images(data, "retain", bank))
            whole = estimator.fit(rows, labels[bank], 10).of_bank()
            expected = whole[torch.searchsorted(bank, members)]
            torch.testing.assert_close(guesses.of_members(i), expected, rtol=1e-4, atol=1e-5)
            if i == 0:
                # The middle ones of twenty groups of three, by their log-odds.
                odds = log_odds(whole, labels[bank]).sort().values
                assert torch.equal(log_odds(expected, labels[members]).sort().values, odds[1::3])
        own = stage.classifier(images(data, "retain", members)).double().softmax(1)
        torch.testing.assert_close(guesses.of_members(2), own, rtol=1e-4, atol=1e-6)
        assert torch.equal(guesses.member_labels, labels[members])

    with torch.no_grad():
        ask(fresh, trained_resnet, data, [LAST, Neighbours(3), OwnAnswer()], look)


@pytest.mark.parametrize("easy", [True, False])
def test_members_that_were_held_out_are_as_hard_as_the_bank(easy, trained_resnet, make_data, fresh):
    """Also where those held out happen to be easy, or hard."""
    data = make_data()
    bank, labels = data.random_part("retain", 300, "estimate"), data.samples.targets
    estimators = [Surrogate(), LAST]

    def look(_, stage):
        rows = LAST.rows(stage.classifier, images(data, "retain", bank))
        odds = log_odds(LAST.fit(rows, labels[bank], 10).of_bank(), labels[bank])
        # Every sample of one half, and one in five of the other.
        kept = ((odds > odds.median()) == easy) | (torch.arange(len(bank)) % 5 == 0)
        held_out, state = bank[kept], stage.classifier.state_dict()
        assert abs(odds[kept].mean() - odds.mean()) > 0.3 * odds.std()
        found = Guesses(estimators, bank, 100, stage, state, held_out)
        assert torch.isin(found._members, held_out).all()
        assert len(found._members) == 100 > len(found._members.unique())
        members = log_odds(found.of_members(1), found.member_labels)
        assert abs(members.mean() - odds.mean()) < 0.05 * odds.std()
        assert float(members.std()) == pytest.approx(float(odds.std()), rel=0.1)
        own = torch.cat([stage.classifier(images(data, "retain", i[None])) for i in found._members])
        torch.testing.assert_close(found.of_members(0), own.double().softmax(1), rtol=1e-4, atol=1e-6)
        assert torch.equal(Guesses([Surrogate()], bank, None, stage, state, held_out).member_labels, labels[held_out])
        # As many places as the bank has samples, where no number is given or it is too large.
        for count in (None, 1000):
            found = Guesses(estimators, bank, count, stage, state, held_out)
            members = log_odds(found.of_members(1), found.member_labels)
            assert len(members) == len(bank)
            assert abs(members.mean() - odds.mean()) < 0.05 * odds.std()

    with torch.no_grad():
        ask(fresh, trained_resnet, data, [OwnAnswer()], look)


def test_of_members_that_an_estimator_does_not_tell_apart_each_is_taken(trained_resnet, make_data, fresh):
    """Votes of three neighbours are few different values."""
    data = make_data()

    def look(guesses, stage):
        assert len(guesses.of_members(0).unique(dim=0)) < 20
        assert len(guesses._members.unique()) == 20

    with torch.no_grad():
        ask(fresh, trained_resnet, data, [Neighbours(3)], look)


class OfSurrogate(KernelRegression):
    """Compares in the surrogate, which has seen most of the bank."""

    asks_surrogate = True


def test_members_are_not_chosen_by_what_a_surrogate_was_trained_on(trained_resnet, make_data, fresh):
    data = make_data()
    bank = data.random_part("retain", 60, "estimate")

    def look(_, stage):
        found = Guesses([OfSurrogate(layer="head")], bank, 20, stage, stage.classifier.state_dict(), bank[::2])
        assert torch.equal(found._members, data.random_part("retain", 20, "estimate", among=bank[::2]))

    with torch.no_grad():
        ask(fresh, trained_resnet, data, [OwnAnswer()], look)


@pytest.mark.parametrize("unseen", [0.1, "half_of_test"])
@pytest.mark.parametrize("part", ["forget", "retain", "unseen"])
def test_what_was_computed_of_the_beginning_is_what_the_estimator_sees(unseen, part, trained_resnet, make_data, fresh):
    data = make_data(unseen=unseen)
    index = data.part(part)[1][5:25]
    estimators = [LAST, KernelRegression(ridge=0.3, layer="last_stage", pool=1), OwnAnswer()]

    def look(guesses, stage):
        assert guesses._beginning is not None
        bank = data.random_part("retain", 60, "estimate")
        for i, estimator in enumerate(estimators[:2]):
            seen = estimator.rows(stage.classifier, images(data, part, index))
            fitted = estimator.fit(
                estimator.rows(stage.classifier, images(data, "retain", bank)), data.samples.targets[bank], 10
            )
            torch.testing.assert_close(guesses.of(i, part, index), fitted.of(seen), rtol=1e-4, atol=1e-5)
        own = stage.classifier(images(data, part, index)).double().softmax(1)
        torch.testing.assert_close(guesses.of(2, part, index), own, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(guesses.of(0, part, index), guesses.of(1, part, index), atol=1e-3)

    with torch.no_grad():
        ask(fresh, trained_resnet, data, estimators, look)


class Scaled(KernelRegression):
    """Rows of its own."""

    def rows(self, network, images):
        return 2 * super().rows(network, images) + 1


def test_rows_of_a_subclass_are_asked_for(trained_resnet, make_data, fresh):
    data = make_data()
    bank = data.random_part("retain", 60, "estimate")
    own = Scaled(ridge=0.3, layer="last_stage")

    def look(guesses, stage):
        fitted = own.fit(own.rows(stage.classifier, images(data, "retain", bank)), data.samples.targets[bank], 10)
        torch.testing.assert_close(
            guesses.of_members(0), fitted.of_bank()[torch.searchsorted(bank, guesses._members)], rtol=1e-4, atol=1e-5
        )

    with torch.no_grad():
        ask(fresh, trained_resnet, data, [own, LAST], look)


class Twofold(nn.Module):
    """Two tensors lead to the last stage: features of an earlier one would be something else."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.side = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        stem = self.stem(x)
        return self.fc((self.last(self.side(stem)) + stem).mean((2, 3)))


def test_another_layer_is_never_taken_for_the_last_stage(make_data, fresh):
    torch.manual_seed(0)
    network, data = Twofold(), make_data()
    bank = data.random_part("retain", 60, "estimate")

    def look(guesses, stage):
        assert guesses._beginning is None
        fitted = LAST.fit(LAST.rows(stage.classifier, images(data, "retain", bank)), data.samples.targets[bank], 10)
        torch.testing.assert_close(
            guesses.of_members(0), fitted.of_bank()[torch.searchsorted(bank, guesses._members)], rtol=1e-4, atol=1e-5
        )

    with torch.no_grad():
        ask(fresh, network, data, [LAST], look)


def test_features_that_take_too_much_memory_are_not_kept(trained_resnet, make_data, fresh, monkeypatch):
    monkeypatch.setattr("lightning_unlearn.frozen_beginning.CACHE_LIMIT", 1000)
    seen = []
    ask(fresh, trained_resnet, make_data(), [LAST], lambda guesses, stage: seen.append(guesses._beginning))
    assert seen == [None]


def test_what_is_no_estimator_is_refused():
    class Nothing(Estimator):
        def rows(self, network, images):
            return images

    with pytest.raises(ChainError, match="Nothing is no estimator; needed: a subclass of AnswerEstimator or of BankEstimator"):
        EstimateUnseen([Nothing(), Copies()])


def test_pools_that_make_no_sense_are_refused():
    with pytest.raises(ChainError, match="KernelRegression: pool is 0"):
        KernelRegression(pool=0)


def test_maps_are_pooled_as_asked():
    network = ResNet(10, in_chans=1, blocks=(1, 1), width=8).eval()
    x = torch.randn(3, 1, 8, 8)
    for pool in (1, 2, 4):
        assert KernelRegression(layer="last_stage", pool=pool).rows(network, x).shape == (3, 8 * pool * pool)

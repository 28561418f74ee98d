import torch

from lightning_unlearn.random import generator, run_seed


def draw(*args, **kwargs):
    return torch.rand(4, generator=generator(*args, **kwargs)).tolist()


def test_a_generator_is_a_function_of_seed_and_purpose(monkeypatch):
    assert run_seed() == 0
    first = draw("noise")
    torch.rand(5)
    assert draw("noise") == first
    assert draw("labels") != first
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert run_seed() == 7
    assert draw("noise") != first
    assert draw("noise", seed=0) == first

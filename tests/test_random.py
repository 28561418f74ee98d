import torch

from lightning_unlearn.random import at_stage, generator, run_seed, seeded, stage_seed


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


def test_a_stage_draws_by_its_position():
    first = draw("noise")
    with at_stage(0):
        assert draw("noise") == first
    seen = [first]
    for position in (1, 2):
        with at_stage(position):
            seen.append(draw("noise"))
            assert draw("noise") == seen[-1]
            assert stage_seed(0) == run_seed() != stage_seed(7)
            with seeded(0):  # a part that is the same wherever it runs
                assert run_seed() == stage_seed(0) == 0
    assert len({str(values) for values in seen}) == 3
    assert run_seed() == 0

import re

import pytest

from lightning_unlearn.chain.methods import load_method
from lightning_unlearn.chain.run import check_chain
from lightning_unlearn.config.shipped import config_names
from lightning_unlearn.exceptions import ChainError, ConfigError
from lightning_unlearn.stages import FineTune, MaskLearning, NormDecay
from lightning_unlearn.training import describe_optimizer


@pytest.mark.parametrize("name", config_names("method"))
def test_every_shipped_method_is_a_chain_that_can_run(name):
    method = load_method(name)
    stages = method()
    check_chain(stages)
    assert all(a is not b for a, b in zip(stages, method(), strict=True))  # fresh ones every time
    # What it is, its paper or origin, and what its cost grows with stand on the first line.
    assert re.match(r"# \w.{40,}", method.path.read_text(encoding="utf-8").splitlines()[0])


def test_arguments_reach_the_stages(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(
        "stages:\n"
        "- class_path: MaskLearning\n  init_args: {penalty: 0.5, batch_size: 7}\n"
        "- class_path: lightning_unlearn.stages.NormDecay\n  init_args: {factor: 0.25}\n"
        "- class_path: FineTune\n"
        "  init_args:\n"
        "    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.125}}\n"
        "    parameters: {class_path: ParameterSelector, init_args: {parts: [head]}}\n"
    )
    learn, decay, tune = load_method(str(path))()
    assert (type(learn), learn.penalty, learn.batch_size) == (MaskLearning, 0.5, 7)
    assert (type(decay), decay.factor) == (NormDecay, 0.25)
    assert isinstance(tune, FineTune)
    assert tune.selector.parts == ["head"]
    assert describe_optimizer(tune.optimizer).startswith("SGD")
    assert "('lr', '0.125')" in describe_optimizer(tune.optimizer)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages:\n- class_path: FineTun\n", "no class is called 'FineTun'. Nearest: 'FineTune'"),
        ("stages:\n- class_path: Qqqq\n", "no class is called 'Qqqq'"),
        ("stages:\n- class_path: NormDecay\n  init_args: {faktor: 0.5}\n", "faktor"),
        ("stages: 3\n", "stages"),
        ("other: 1\n", "lists no stages"),
        ("- 1\n", "holds a list; needed: keys such as"),
        (
            "stages:\n- class_path: FineTune\n  init_args: {max_epochs: 1, max_epochs: 3}\n",
            "line 3: the key 'max_epochs' stands twice",
        ),
        ("stages:\n- class_path: FineTune\nstages:\n- class_path: NormDecay\n", "line 3: the key 'stages' stands twice"),
    ],
)
def test_files_that_are_no_method(text, message, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_method(str(path))
    assert str(path) in str(caught.value)


def test_yaml_runs_no_code(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("stages: !!python/object/apply:os.system ['touch made']\n")
    with pytest.raises(ConfigError, match=r"python/object/apply.*YAML with plain values"):
        load_method(str(path))
    assert not (tmp_path / "made").exists()


def test_what_a_stage_refuses_is_said(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("stages:\n- class_path: NormDecay\n  init_args: {factor: 1.5}\n")
    with pytest.raises(ChainError, match=r"factor is 1.5"):
        load_method(str(path))()


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="Nearest shipped name: 'method/fine_tune'"):
        load_method("fine_tunes")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            "class_path: FineTune\n  init_args: {max_epoch: 1}",
            r"FineTune has no argument 'max_epoch'. Nearest: 'max_epochs'. \(/.*/own.yaml, line 3\)",
        ),
        ("class_path: FineTun", r"no class is called 'FineTun'. Nearest: 'FineTune'. \(/.*/own.yaml, line 2\)"),
        ("class_path: nowhere.Stage", r"No module named 'nowhere'. Searched: this folder \(/.*\) and the installed packages"),
        ("class_path: own_slips.Bounds", "module 'own_slips' has no attribute 'Bounds'. Nearest: 'Bounded'"),
        ("class_path: own_slips.Bounded\n  init_args: {retain_wieght: 2}", "'retain_wieght'. Nearest: 'retain_weight'"),
        ("class_path: own_slips.Bounded\n  init_args: {retain_weight: high}", "retain_weight is 'high'; needed: float"),
        ("class_path: own_slips.Bounded\n  retain_weight: 2", "has retain_weight beside class_path.*below init_args: "),
        ("own_slips.Bounded: {retain_weight: 2}", r"stages\[0\] has no class_path, but own_slips.Bounded; needed"),
    ],
)
def test_slips_in_a_method_of_ones_own(tmp_path, monkeypatch, stage, message):
    (tmp_path / "own_slips.py").write_text(
        "from lightning_unlearn.stages import UnlearningStage\n\n\nclass Bounded(UnlearningStage):\n    view = 'both'\n\n"
        "    def __init__(self, retain_weight: float = 1.5, **kwargs):\n        super().__init__(**kwargs)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own.yaml").write_text(f"stages:\n- {stage}\n")
    with pytest.raises(ConfigError, match=message):
        load_method(str(tmp_path / "own.yaml"))


def test_a_list_of_stages_without_a_dash(tmp_path):
    (tmp_path / "own.yaml").write_text("stages:\n  class_path: FineTune\n")
    with pytest.raises(ConfigError, match=r"own.yaml: stages is one stage without a `-` before it; needed: a list"):
        load_method(str(tmp_path / "own.yaml"))


def test_only_methods_are_offered_for_a_name_that_is_not_there():
    with pytest.raises(ConfigError) as caught:
        load_method("zzzzzz")
    assert "method/fine_tune" in str(caught.value)
    assert "data/" not in str(caught.value)

import os
import subprocess
import sys

import pytest
import torch
from sklearn.svm import SVC

from lightning_unlearn.attacks.draw import attack_sets
from lightning_unlearn.attacks.svc import mia_svc, svc_attack
from lightning_unlearn.attacks.threshold import mia_efficacy


def confidences(n, shift, seed):
    generator = torch.Generator().manual_seed(seed)
    return (2 + shift + 2 * torch.randn(n, generator=generator, dtype=torch.float64)).sigmoid()


def test_a_clear_separation_is_found():
    members, others = torch.linspace(0.8, 1, 50), torch.linspace(0, 0.6, 50)
    assert svc_attack(members, others, torch.tensor([0.1, 0.5, 0.9, 1.0])).tolist() == [
        False,
        False,
        True,
        True,
    ]


def test_the_published_settings_on_the_drawn_samples():
    forget, retain, test = confidences(300, 0, 1), confidences(500, 3, 2), confidences(200, 0, 3)
    y = torch.arange(500) % 4
    sets = attack_sets(y, 200, seed=7)
    x = torch.cat([retain[sets.members], test[sets.non_members]])[:, None].numpy()
    model = SVC(C=3, kernel="rbf", gamma="auto").fit(x, [1] * 200 + [0] * 200)
    called_out = (model.predict(forget[:, None].numpy()) == 0).mean()
    assert mia_svc(forget, retain, test, y, seed=7) == pytest.approx(called_out)


def test_samples_like_retained_ones_are_called_members_more_often():
    forget, retain, test = confidences(300, 0, 1), confidences(400, 3, 2), confidences(400, 0, 3)
    y = torch.arange(400) % 4
    for attack in (mia_svc, mia_efficacy):
        assert attack(forget, retain, test, y) > attack(retain[:300], retain, test, y) + 0.2


def test_scikit_learn_is_imported_only_when_the_attack_runs():
    code = "import sys, lightning_unlearn.attacks.svc; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=_environment()).returncode == 0


def _environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}

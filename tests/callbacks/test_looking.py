"""What every callback that looks at samples while a stage runs refuses."""

import pytest

from lightning_unlearn.callbacks.select_by_unseen import SelectByUnseen
from lightning_unlearn.callbacks.stop_when_broken import StopWhenBroken
from lightning_unlearn.exceptions import ConfigError


@pytest.mark.parametrize("kind", [SelectByUnseen, StopWhenBroken])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_retain_drop": -1}, "max_retain_drop is -1; needed: 0 to 100 points"),
        ({"max_retain_drop": 101}, "max_retain_drop is 101; needed: 0 to 100 points"),
        ({"samples": 0}, "samples is 0; needed: at least 1"),
    ],
)
def test_arguments_are_checked(kind, arguments, message):
    with pytest.raises(ConfigError, match=f"{kind.__name__}: {message}"):
        kind(**arguments)

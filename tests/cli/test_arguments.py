"""What the command line itself understands."""

import pytest

from lightning_unlearn.cli.arguments import read_call
from lightning_unlearn.exceptions import ConfigError


def test_configs_before_and_after_the_command_keep_their_order():
    call = read_call(["-c", "a", "unlearn", "--config=b", "--goal", "repair", "-c", "d"])
    assert call.command == "unlearn"
    assert call.configs == ["a", "b", "d"]
    assert call.arguments == ["--config", "a", "--config", "b", "--goal", "repair", "--config", "d"]


def test_options_of_the_call_do_not_reach_the_commands_parser():
    call = read_call(["fit", "--name", "first", "--debug", "--trainer.max_epochs", "3"])
    assert (call.name, call.debug, call.arguments) == ("first", True, ["--trainer.max_epochs", "3"])


def test_a_value_that_looks_like_a_command_is_a_value():
    assert read_call(["--name", "fit", "unlearn"]).command == "unlearn"


def test_plain_commands_read_their_own_options():
    assert read_call(["report", "runs/1", "--output", "x"]).arguments == ["runs/1", "--output", "x"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["unlaern"], "Nearest: 'unlearn'"),
        ([], "No command was given"),
        (["--data.batch_size", "3"], "without a command"),
        (["fit", "-c"], "-c needs a value"),
        (["fit", "--name", "--debug"], "--name needs a value"),
        (["evaluate", "--resume", "x"], "cannot be resumed"),
        (["benchmark", "--resume", "x"], "finished cells are kept"),
        (["test", "--run", "x"], "--run belongs to evaluate"),
        (["fit", "--output", "x", "--name", "y"], "Give one"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        read_call(arguments)

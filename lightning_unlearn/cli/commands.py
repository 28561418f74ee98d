"""Names and summaries of the commands, known without importing torch."""

from lightning_unlearn.config.names import hint
from lightning_unlearn.exceptions import ConfigError

__all__ = ["COMMANDS", "MAY_TRAIN", "NUMBERED", "PLAIN", "RESUMABLE", "WITH_LENGTH", "WITH_RUN", "known_command", "overview"]

COMMANDS = {
    "fit": "Train an original, or with --data.view retain a reference.",
    "unlearn": "Make a trained classifier forget, save the result and report on it.",
    "evaluate": "Judge a model: against retrained references where there are any, and by what can be said without one.",
    "benchmark": "Compare methods on originals and forget sets, beside retrained references.",
    "detect": "Find training samples whose label is likely wrong, and suggest labels for them.",
    "scores": "Score training samples by how memorised they are, for a forget set of the highest.",
    "purge": "List, and with --yes delete, what still holds forgotten data or was trained on it.",
    "report": "Rebuild or merge reports from run folders, or verify a run's ledger.",
    "export": "Write safetensors, a loadable model folder and a model card with the evidence.",
    "validate": "Accuracy on unseen samples.",
    "test": "Accuracy on test samples.",
    "predict": "Write the logits of all samples to a file.",
}
# Commands that are no verbs of the Trainer.
PLAIN = ("purge", "report", "export")
RESUMABLE = ("fit", "unlearn")
# Commands that take an earlier run.
WITH_RUN = ("evaluate", "unlearn", "fit", "detect")
# Commands whose method writes to the run's own, numbered folder.
NUMBERED = ("unlearn", "evaluate", "detect", "scores")
# Commands that train for the Trainer's length.
WITH_LENGTH = ("fit", "benchmark", "scores")
# Commands that may train.
MAY_TRAIN = (*WITH_LENGTH, "detect")

_OVERVIEW = """\
usage: lightning-unlearn COMMAND [-c CONFIG ...] [arguments]

Train image classifiers, make them forget chosen samples, and show how close that is to retraining.

commands:
{commands}

lightning-unlearn COMMAND --help     the arguments of a command, and of the stages in the given configs
lightning-unlearn COMMAND --help.all everything

Configs are layered left to right; a name without a path is a shipped one:
  lightning-unlearn fit -c data/digits -c model/small_cnn --trainer.max_epochs 40
  lightning-unlearn unlearn -c data/digits -c model/small_cnn -c method/selective_forgetting \\
    --checkpoint runs/fit/1/checkpoints/last.ckpt
"""


def overview() -> str:
    """The help of the whole program.

    Returns:
        Text.
    """
    return _OVERVIEW.format(commands="\n".join(f"  {name:<10} {summary}" for name, summary in COMMANDS.items()))


def known_command(name: str) -> str:
    """Check a command's name.

    Args:
        name: What was typed.

    Returns:
        The same.

    Raises:
        ConfigError: There is no such command.
    """
    if name not in COMMANDS:
        raise ConfigError(f"No command {name!r}.{hint(name, COMMANDS)}")
    return name

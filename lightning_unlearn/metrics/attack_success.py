"""Does a backdoor still open? The share of images with the trigger that are taken for the attacker's class."""

from lightning_unlearn.exceptions import DataError
from lightning_unlearn.outputs import PartOutputs

__all__ = ["attack_success"]


def attack_success(triggered: PartOutputs, target: int) -> float:
    """Attack success rate (Gu et al. 2017, BadNets, arXiv 1708.06733).

    Args:
        triggered: Outputs on images with the trigger, with their true labels, none of which is `target`: an image of that
            class would count as a success without any attack.
        target: The attacker's class.

    Returns:
        Points, 0 ... 100; the aim is the reference's value, not 0.

    Raises:
        DataError: A sample is of the attacker's class.
    """
    own = int((triggered.targets == target).sum())
    if own:
        raise DataError(f"{own} samples are of the class {target}, which the trigger is for; needed: samples of other classes.")
    return 100 * float((triggered.predictions == target).double().mean())

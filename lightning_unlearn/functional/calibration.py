"""From rough estimates of an unseen sample's answer to answers that are distributed as those of unseen samples."""

import torch
from torch import Tensor

__all__ = [
    "calibrated",
    "log_odds",
    "match_quantiles",
    "neighbour_votes",
    "sharpening_exponent",
    "strike_classes",
    "with_log_odds",
]


def log_odds(probabilities: Tensor, targets: Tensor, floor: float = 1e-12) -> Tensor:
    """Log odds of the label, log p_y - log(1 - p_y).

    Args:
        probabilities: (N, K).
        targets: Labels, (N,), int64.
        floor: Smallest probability that is told from zero, on both sides.

    Returns:
        (N,), float64.
    """
    p = probabilities.double().gather(1, targets[:, None])[:, 0].clamp(floor, 1 - floor)
    return torch.log(p) - torch.log1p(-p)


def calibrated(
    guesses: Tensor,
    targets: Tensor,
    members: Tensor,
    member_targets: Tensor,
    unseen: Tensor,
    unseen_targets: Tensor,
    noise: float = 0.0,
    lower: float = 0.0,
    source: torch.Generator | None = None,
) -> Tensor:
    """Guesses about samples made to be distributed as answers to unseen ones: see `match_quantiles`, `sharpening_exponent`.

    Args:
        guesses: (N, K).
        targets: Labels, (N,), int64.
        members: Guesses of the same kind about samples that were trained on, (M, K).
        member_targets: Their labels, (M,), int64.
        unseen: True answers to unseen samples, (U, K).
        unseen_targets: Their labels, (U,), int64.
        noise: See `match_quantiles`.
        lower: What is taken off the log-odds of the labels in the end.
        source: See `match_quantiles`.

    Returns:
        (N, K), rows summing to 1.
    """
    of_members, of_unseen = log_odds(members, member_targets), log_odds(unseen, unseen_targets)
    values = match_quantiles(log_odds(guesses, targets), of_members, of_unseen, noise, source)
    # Half of the way: on unseen samples of CIFAR-10 the whole exponent raised Jensen-Shannon by 5 %, its root by nothing.
    exponent = sharpening_exponent(members, member_targets, unseen, unseen_targets) ** 0.5
    return with_log_odds(guesses, targets, values - lower, exponent)


def match_quantiles(
    values: Tensor, members: Tensor, unseen: Tensor, noise: float = 0.0, source: torch.Generator | None = None
) -> Tensor:
    """Carry values over from the distribution of `members` to that of `unseen`: the q-th quantile becomes the q-th quantile.

    Forgotten samples are ranked among retained ones, not among themselves: both were trained on, so what an estimator still
    remembers of them lifts both alike, and a request of difficult samples stays difficult. Equal values get ranks at random
    among the members that they equal, so that a coarse estimate is carried over in distribution too.

    Args:
        values: (N,).
        members: Values of the same kind for samples that were trained on, (M,), at least one.
        unseen: True values of samples that were not trained on, (U,), at least one.
        noise: Standard deviation of noise on values and members before ranking, in units of the members' own deviation: it
            weakens the tie between estimate and result and leaves the distribution as it is.
        source: Generator of the noise and of ranks among equals, on the CPU; None: torch's own.

    Returns:
        (N,), float64.

    Raises:
        ValueError: There is no member or no unseen sample.
    """
    if len(unseen) == 0 or len(members) == 0:
        raise ValueError(
            f"match_quantiles got {len(members)} members and {len(unseen)} unseen samples; needed: at least one of each."
        )
    values, members = values.double(), members.double()
    if noise > 0 and len(members) > 1:
        size = noise * members.std()
        values, members = (v + size * torch.randn(len(v), generator=source, dtype=v.dtype).to(v) for v in (values, members))
    members = members.sort().values
    below, upto = torch.searchsorted(members, values), torch.searchsorted(members, values, right=True)
    place = torch.rand(len(values), generator=source, dtype=values.dtype).to(values.device)
    place = torch.where(upto - below > 1, place, 0.5)
    rank = (below + place * (upto - below) + 0.5) / (len(members) + 1)
    return torch.quantile(unseen.double(), rank)


def with_log_odds(probabilities: Tensor, targets: Tensor, values: Tensor, exponent: float = 1.0) -> Tensor:
    """Probabilities whose labels have given log-odds, and whose other classes keep the shares that they have among themselves.

    Args:
        probabilities: (N, K).
        targets: Labels, (N,), int64.
        values: Log-odds of the labels, (N,).
        exponent: Power to which the other classes' shares are raised; above 1 their largest stands out more.

    Returns:
        (N, K), rows summing to 1, the dtype of `probabilities`.
    """
    p = torch.sigmoid(values.double())
    others = _shares(probabilities, targets, exponent) * (1 - p)[:, None]
    return others.scatter(1, targets[:, None], p[:, None]).to(probabilities.dtype)


def sharpening_exponent(members: Tensor, member_targets: Tensor, unseen: Tensor, unseen_targets: Tensor) -> float:
    """The power that makes estimates as decided between the wrong classes as true answers to unseen samples are.

    A mean over copies or neighbours spreads over more classes than one network's answer does. The exponent equals the means
    of the largest share among the classes that are not the label.

    Args:
        members: Estimates for samples that were trained on, (M, K).
        member_targets: Their labels, (M,), int64.
        unseen: True answers to unseen samples, (U, K).
        unseen_targets: Their labels, (U,), int64.

    Returns:
        Between 0.25 and 8.
    """
    wanted = _shares(unseen, unseen_targets).max(1).values.mean()
    low, high = 0.25, 8.0
    for _ in range(30):
        # The mean of the largest share grows with the exponent.
        middle = (low * high) ** 0.5
        if _shares(members, member_targets, middle).max(1).values.mean() < wanted:
            low = middle
        else:
            high = middle
    return float(middle)


def _shares(probabilities: Tensor, targets: Tensor, exponent: float = 1.0) -> Tensor:
    """Shares of the classes that are not the label, (N, K), float64; 0 for the label."""
    # Scaled by the largest: powers of small numbers would all be 0, and where a network is sure all others are small.
    others = probabilities.double().scatter(1, targets[:, None], 0.0)
    largest = others.max(1, keepdim=True).values
    # Where nothing is left for them they share it evenly.
    even = torch.ones_like(others).scatter(1, targets[:, None], 0.0)
    powers = torch.where(largest > 0, others / largest, even) ** exponent
    return powers / powers.sum(1, keepdim=True)


def neighbour_votes(features: Tensor, bank: Tensor, labels: Tensor, k: int, num_classes: int, own: bool = False) -> Tensor:
    """Share of each class among the nearest samples of a bank, by cosine similarity.

    Args:
        features: (N, D).
        bank: (M, D).
        labels: Labels of the bank, (M,), int64.
        k: Number of neighbours, all of the bank where it is smaller.
        num_classes: K.
        own: Whether `features` are the bank itself: a sample is then not its own neighbour.

    Returns:
        (N, K), rows summing to 1.
    """
    bank = torch.nn.functional.normalize(bank.flatten(1).float(), dim=1)
    votes = []
    begin = 0
    for chunk in torch.split(torch.nn.functional.normalize(features.flatten(1).float(), dim=1), 1024):
        likeness = chunk @ bank.T
        if own:
            rows = torch.arange(len(chunk), device=chunk.device)
            likeness[rows, begin + rows] = -2.0
        nearest = likeness.topk(max(1, min(k, len(bank) - own)), dim=1).indices
        votes.append(torch.nn.functional.one_hot(labels[nearest], num_classes).float().mean(1))
        begin += len(chunk)
    return torch.cat(votes)


def strike_classes(probabilities: Tensor, classes: Tensor) -> Tensor:
    """Probabilities without some classes, the rest scaled to 1.

    Args:
        probabilities: (N, K).
        classes: Classes to strike, (C,), int64, fewer than K.

    Returns:
        (N, K), rows summing to 1; what was given where there is nothing to strike.
    """
    if len(classes) == 0:
        return probabilities
    rest = probabilities.double().clamp(min=1e-12)
    rest[:, classes] = 0.0
    return (rest / rest.sum(1, keepdim=True)).to(probabilities.dtype)

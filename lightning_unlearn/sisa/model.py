"""An ensemble whose members each know one shard of the training set."""

from typing import Literal, TypeAlias

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lightning_unlearn.classifier import Classifier, Plain, build_network, default_optimizer
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.functional.voting import majority_vote, mean_vote
from lightning_unlearn.random import drawn_from
from lightning_unlearn.schedule import Schedule

__all__ = ["Aggregation", "Sisa", "Vote"]

Aggregation: TypeAlias = Literal["vote", "mean"]


class Vote(nn.Module):
    """Members whose answers are put together. A member whose shard holds no sample has no say.

    Args:
        members: Networks that give logits (B, K).
        aggregation: `vote` or `mean`; see `Sisa`.
    """

    has_samples: Tensor

    def __init__(self, members: list[nn.Module], aggregation: Aggregation) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.aggregation = aggregation
        # In the checkpoint: an empty shard's member holds weights too, but random ones.
        self.register_buffer("has_samples", torch.ones(len(members), dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (B, K) of images (B, C, H, W)."""
        voters = [member for member, has in zip(self.members, self.has_samples.tolist(), strict=True) if has]
        logits = torch.stack([member(x) for member in voters])
        return majority_vote(logits) if self.aggregation == "vote" else mean_vote(logits)


class Sisa(Classifier):
    """Sharded, isolated, sliced and aggregated training (SISA: Bourtoule et al., IEEE S&P 2021), for exact unlearning.

    Every sample belongs to one shard and one slice of it, by a hash of its key and the seed. A member is trained per shard:
    on its first slice, then on the first two, and so on, with a checkpoint after each. To delete a sample, its shard is
    trained again from the checkpoint before its slice; the result is what training without the sample gives, bit for bit.
    The answer is a vote of the members, given as log-probabilities, so that everything that takes logits takes it.

    `UnlearningTrainer.fit` and the command `fit` train it slice by slice; a plain Trainer's `fit` refuses it.

    Args:
        network: Name of a timm architecture or class path of an `nn.Module`; see `Classifier`. Each member is one.
        num_classes: Number of classes; from the command line it follows the data.
        in_chans: Channels of the images; from the command line it follows the data.
        image_size: See `Classifier`.
        small_image_stem: See `Classifier`.
        network_args: See `Classifier`.
        optimizer: Makes the optimiser of a slice's training from a member's parameters.
        schedule: Course of the learning rate over each slice's training.
        label_smoothing: See `Classifier`.
        shards: Number of shards (S), and so of members. More make a deletion cheaper and the members weaker.
        slices: Slices of a shard (R). More make a deletion cheaper and take more checkpoints.
        aggregation: `vote`: the majority, ties broken by the mean probability; `mean`: the mean probability.
        processes: Shards that are trained at once, each in a process with one thread, on a CPU. 1: one after another. Where
            torch has one thread in either case the weights are the same.

    Raises:
        ConfigError: A count is below 1, or the network is not given by name.
    """

    network: Vote

    def __init__(
        self,
        network: str = "resnet18",
        num_classes: int = 10,
        in_chans: int = 3,
        image_size: int | None = None,
        small_image_stem: bool = False,
        network_args: dict[str, Plain] | None = None,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Schedule = "one_cycle",
        label_smoothing: float = 0.0,
        shards: int = 4,
        slices: int = 3,
        aggregation: Aggregation = "vote",
        processes: int = 1,
    ) -> None:
        for name, count in (("shards", shards), ("slices", slices), ("processes", processes)):
            if isinstance(count, bool) or count < 1:
                raise ConfigError(f"Sisa: {name} is {count}; needed: at least 1.")
        if aggregation not in ("vote", "mean"):
            raise ConfigError(f"Sisa: aggregation is {aggregation!r}; needed: 'vote' or 'mean'.")
        if not isinstance(network, str):
            raise ConfigError(
                f"Sisa: network is a {type(network).__name__}; needed: its name or class path, for each shard gets a new one."
            )
        arguments = (network, num_classes, in_chans, network_args or {}, small_image_stem, image_size)
        members = [build_network(*arguments) for _ in range(shards)]
        super().__init__(
            Vote(members, aggregation), num_classes, optimizer=optimizer, schedule=schedule, label_smoothing=label_smoothing
        )
        self.save_hyperparameters(
            *("network", "num_classes", "in_chans", "image_size", "small_image_stem", "network_args", "schedule"),
            *("label_smoothing", "shards", "slices", "aggregation"),
        )
        self._arguments = arguments
        self.shards = shards
        self.slices = slices
        self.processes = processes

    def setup(self, stage: str) -> None:
        """Refuse Lightning's own fit, in which every member would see every sample.

        Args:
            stage: What the Trainer is about to do.

        Raises:
            ConfigError: It is a fit.
        """
        if stage == "fit":
            raise ConfigError(
                "A Sisa is trained slice by slice, and this Trainer would train all its members on everything. Train it with "
                "the command fit, or with UnlearningTrainer.fit; benchmark, scores and the bank cannot train it."
            )

    def member(self, shard: int) -> Classifier:
        """The member of a shard as a classifier of its own, which shares its weights.

        Args:
            shard: Number of the shard.

        Returns:
            The classifier.
        """
        return Classifier(
            self.network.members[shard],
            self.num_classes,
            optimizer=self.optimizer,
            schedule=self.schedule,
            label_smoothing=self.label_smoothing,
        )

    def redraw(self, shard: int, seed: int) -> None:
        """Give a member the weights that its architecture's constructor draws.

        Args:
            shard: Number of the shard.
            seed: Seed of the draw.
        """
        with drawn_from(seed):
            self.network.members[shard].load_state_dict(build_network(*self._arguments).state_dict())

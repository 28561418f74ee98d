"""Numbers of samples that figures and sentences both go by. Imports nothing."""

__all__ = ["FEWEST_FORGOTTEN"]

# For a verdict on forgotten against unseen samples: an AUC of n samples against many has a standard error of up to
# 1 / sqrt(12 n) at 0.5, 0.09 for ten. With fewer, a perfect AUC by chance is no rarity, and the interval is not to be trusted.
FEWEST_FORGOTTEN = 10

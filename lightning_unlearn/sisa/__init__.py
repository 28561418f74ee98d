"""SISA (Bourtoule et al., IEEE S&P 2021): training in shards and slices, so that forgetting is exact and costs a part."""

from lightning_unlearn.sisa.model import Sisa

__all__ = ["Sisa"]

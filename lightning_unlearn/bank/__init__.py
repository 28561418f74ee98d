"""Trained originals and references, kept by content."""

from typing import TYPE_CHECKING

from lightning_unlearn.lazy import lazy_names

if TYPE_CHECKING:
    from lightning_unlearn.bank.bank import Bank, Recipe

__all__ = ["Bank", "Recipe"]

__getattr__ = lazy_names(__name__, {"Bank": "bank", "Recipe": "bank"})

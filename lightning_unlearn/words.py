"""Numbers of things in sentences. Imports nothing."""

__all__ = ["plural", "were"]


def plural(number: int, word: str) -> str:
    """A number of things.

    Args:
        number: How many.
        word: One of them.

    Returns:
        For instance "1 sample" or "2 samples".
    """
    return f"{number} {word}{'' if number == 1 else 's'}"


def were(number: int) -> str:
    """The verb behind a number of things.

    Args:
        number: How many.

    Returns:
        "was" for one, else "were".
    """
    return "was" if number == 1 else "were"

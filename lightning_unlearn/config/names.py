"""The nearest right name for a mistyped one."""

import difflib
from collections.abc import Iterable

__all__ = ["hint"]


def hint(name: str, known: Iterable[str], listed: int = 12) -> str:
    """What to say after "there is no such name".

    Args:
        name: What was typed.
        known: What would have been possible.
        listed: How many possible names are listed where none is near.

    Returns:
        ` Nearest: 'x'.`, or ` Known: ...` where none is near and there are few; else nothing.
    """
    pool = sorted(set(known))
    by_case = {entry.lower(): entry for entry in pool}
    near = difflib.get_close_matches(name.lower(), by_case, n=1, cutoff=0.6)
    if near:
        return f" Nearest: {by_case[near[0]]!r}."
    return f" Known: {', '.join(pool)}." if 0 < len(pool) <= listed else ""

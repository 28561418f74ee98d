"""How the benchmarks measure: processor time of one thread, variants interleaved, medians, ratios."""

import json
import statistics
import time
from collections.abc import Callable, Mapping

import torch


def medians(variants: Mapping[str, Callable[[], object]], repeats: int = 5, warm_up: int = 1) -> dict[str, float]:
    """Median processor seconds of each variant, on one thread; run A B C A B C ... so that load disturbs all alike.

    Args:
        variants: Name -> what to time.
        repeats: Timed runs of each, at least 5.
        warm_up: Runs of each that are not timed.

    Returns:
        Name -> seconds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    # The C library hands large blocks back to the system until it has seen one freed, and page faults then cost more
    # than the arithmetic: start as a process that has run for a while.
    block = torch.empty(31 * 2**18)
    del block
    try:
        for i in range(warm_up + repeats):
            for name, run in variants.items():
                start = time.process_time()
                run()
                if i >= warm_up:
                    seconds[name].append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(result: Mapping[str, object]) -> None:
    """One line of JSON."""
    print(json.dumps(result))

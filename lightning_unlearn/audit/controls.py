"""Controls of an audit: it must see what is there, and nothing else; otherwise it says that it is void."""

import math
from collections.abc import Mapping

from lightning_unlearn.report.audit_schema import Audit
from lightning_unlearn.report.labels import number

__all__ = ["FAILS_BELOW", "PASSES_ABOVE", "least_p", "p_value", "run_controls"]

# A held-out reference must not be told from the references; one honest audit in a hundred is void by this.
PASSES_ABOVE = 0.01
FAILS_BELOW = 0.001


def run_controls(audit: Audit, references: Mapping[str, int]) -> None:
    """Write down what the controls gave, and why the audit is void where they failed.

    Args:
        audit: With its lines; gets `controls`, `void` and `unchecked`.
        references: How many models each group was compared with, by its name.
    """
    for line in audit.of():
        p, value = line.metrics["rank_auc/p"], number("rank_auc", line.metrics["rank_auc"])
        least = least_p(line.models, references[line.method])
        if line.role == "zero" and least > PASSES_ABOVE:
            audit.unchecked += 1
            audit.controls.append(
                f"Held-out references against references: rank AUC {value}; too few models to check that they are not told "
                f"apart: {line.models} against {references[line.method]} give no p below {p_value(least)}, needed: "
                f"{PASSES_ABOVE:g} (5 against 5)."
            )
        elif line.role == "zero":
            held = p > PASSES_ABOVE
            audit.controls.append(
                f"Held-out references against references: rank AUC {value}, p = {p_value(p)}; "
                + ("not told apart, as it must be." if held else "told apart.")
            )
            if not held:
                audit.void.append(
                    f"Two groups of models that never saw the forgotten samples are told apart (p = {p_value(p)}, must be "
                    f"above {PASSES_ABOVE:g}): they differ by more than their seeds, or this is the one audit in a hundred."
                )
        if line.role == "ceiling":
            held = p < FAILS_BELOW
            audit.controls.append(
                f"Originals against references: rank AUC {value}, p = {p_value(p)}; "
                + ("told apart, as it must be." if held else "not told apart.")
            )
            if not held:
                audit.void.append(
                    f"The originals, which were trained on the forgotten samples, are not told from references "
                    f"(p = {p_value(p)}, must be below {FAILS_BELOW:g}): there is nothing to forget, or {line.models} models "
                    "are too few to see it."
                )
    roles = {line.role for line in audit.lines}
    audit.unchecked += len({"zero", "ceiling"} - roles)
    if "zero" not in roles:
        audit.controls.append("No held-out references: that two groups of references pass was not checked.")
    if "ceiling" not in roles:
        audit.controls.append("No originals: whether this audit would notice that nothing was forgotten is not known.")


def least_p(a: int, b: int) -> float:
    """The smallest p of all groupings; two groups of one size can be named the other way round, which changes nothing.

    Args:
        a: Models of one group.
        b: Of the other.

    Returns:
        In 0 ... 1.
    """
    return (2 if a == b else 1) / math.comb(a + b, a)


def p_value(p: float) -> str:
    """Write a p-value.

    Args:
        p: In 0 ... 1.

    Returns:
        Two digits.
    """
    return f"{p:.2g}"

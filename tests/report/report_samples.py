"""Reports to test with, hostile names included."""

import random

from lightning_unlearn.report.schema import Report, Request, Row, StageRecord

EVIL = (
    "<script>alert(1)</script>",
    "\"quoted' & <b>bold</b>",
    "two\nlines\r\nand\ttab",
    "\u202eright-to-left override",
    "[bold red]rich[/bold red] [link=https://evil.example]x[/link]",
    "$x^2$ \\frac{",
    "</style></title><img src=x onerror=alert(1)>",
    "undecodable \udcff \x1b[31m \x00",
    "=cmd()",
)


def metrics(gap, **others):
    return {
        "gap/avg": gap,
        "forget/acc": 80.0 + gap,
        "retain/acc": 99.0 - gap,
        "test/acc": 85.0 - gap,
        "mia/efficacy": 22.0 - gap,
        "mia/auc": 0.55,
        "relearn/gap": gap / 2,
        "forget_unseen/auc": 0.53,
        "forget_unseen/auc/low": 0.49,
        "forget_unseen/auc/high": 0.57,
        "cost/share": 0.07,
        "time/unlearn_s": 12.0,
        "memory/peak_mb": 512.0,
    } | others


def details(names=("cat", "dog"), seed=0):
    draw = random.Random(seed)
    rates = [0.0, *sorted(draw.random() for _ in range(20)), 1.0]
    return {
        "margins": {
            "bins": [-4.0, -2.0, 0.0, 2.0, 4.0],
            "forget": [1.0, 3.0, 5.0, 2.0],
            "unseen": [2.0, 3.0, 4.0, 2.0],
            "test": [2.0, 4.0, 4.0, 1.0],
            "reference": [1.0, 4.0, 4.0, 2.0],
        },
        "roc": {"fpr": rates, "tpr": [rate**0.8 for rate in rates]},
        "per_class": [{"class": name, "forget": 80.0, "retain": 98.0, "test": None} for name in names],
        "layers": {f"{name}.weight": 0.1 + i / 10 for i, name in enumerate(names)},
    }


def stages(name="MaskLearning", layers=("a.weight",)):
    return [
        StageRecord(name, 4.0, 1000.0, 0.02, dict.fromkeys(layers, 0.5), {}, {name: dict.fromkeys(layers, 0.25)}),
        StageRecord("FineTune", 8.0, 3000.0, 0.05),
    ]


def request(draw=0, name=None):
    return Request(name or f"random 4 %, draw {draw}", "RandomFraction(0.04)", 100, 2500, f"{draw}abcdef" * 8)


def single(reference=True):
    asked = request()
    rows = [Row("Mine", "method", asked.name, 0, metrics(2.0), stages(), details(), ["a note"], "lr=0.1")]
    rows.append(Row("original", "original", asked.name, 0, metrics(9.0)))
    if reference:
        rows += [Row("retrained", "reference", asked.name, seed, metrics(0.5)) for seed in (1, 2)]
    else:
        for row in rows:
            del row.metrics["gap/avg"], row.metrics["relearn/gap"]
    levels = {asked.name: {"gap/avg": 0.8, "relearn/gap": 1.5, "forget/acc": 0.6}} if reference else {}
    return Report(
        "unlearn", "Request 17", "2026-01-02T03:04:05+00:00", "untrain", "screen", [asked], rows, levels,
        "seed: 1\nstages: [FineTune]\n", {"torch": "2.10"}, "a laptop", ["a warning"],
    )  # fmt: skip


def benchmark(names=("Alpha", "Beta")):
    rows = []
    for draw in (0, 1):
        for seed in (0, 1):
            for i, name in enumerate(names):
                gap = 1.0 + i + draw * 0.5 + seed * 0.1
                cell = metrics(gap, **{"cost/share": 0.1 / (i + 1)})
                rows.append(Row(name, "method", request(draw).name, seed, cell, stages(), details()))
            rows.append(Row("original", "original", request(draw).name, seed, metrics(9.0)))
            rows.append(Row("retrained", "reference", request(draw).name, seed, metrics(0.5)))
    levels = {request(draw).name: {"gap/avg": 0.8 + 0.2 * draw} for draw in (0, 1)}
    return Report(
        "benchmark", "Two methods", "2026-01-02T03:04:05+00:00", "untrain", "screen",
        [request(0), request(1)], rows, levels, "seed: 1\n", {"torch": "2.10"}, "a laptop", [],
    )  # fmt: skip


def hostile():
    """Every text of a report is hostile."""
    evil = " ".join(EVIL)
    asked = Request(evil, evil, 10, 100, evil, 1, 1)
    rows = [
        Row(
            name, "method", evil, 0, metrics(1.0 + i), [*stages(name, EVIL)], details(EVIL, i), [name], name
        )
        for i, name in enumerate(EVIL)
    ]  # fmt: skip
    return Report(
        "unlearn", evil, evil, evil, evil, [asked], rows, {evil: {"gap/avg": 0.5}}, "\n".join(EVIL),
        {name: name for name in EVIL}, evil, list(EVIL),
    )  # fmt: skip

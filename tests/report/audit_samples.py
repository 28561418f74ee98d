"""Audits to test reports with, hostile names included."""

from report_samples import EVIL

from lightning_unlearn.report.audit_schema import WHOLE, Audit, AuditLine, Exposed, Histogram
from lightning_unlearn.report.schema import Report, Request

STRATA = (WHOLE, "hardest quarter", f"{WHOLE}, int8 weights")


def lines(method, role, rank_auc, verdict=""):
    found = []
    for stratum in STRATA:
        metrics = {"rank_auc": rank_auc, "rank_auc/p": 0.0005, "rank_auc/null": 0.552, "ulira/references": 100 * rank_auc - 5}
        metrics |= {"rmia/auc": rank_auc, "rmia1/auc": rank_auc - 0.02, "klom/median": 2.0, "f": 0.1}
        if stratum == WHOLE:
            metrics |= {"rank_auc/low": rank_auc - 0.02, "rank_auc/high": rank_auc + 0.02, "test/acc": 86.0}
        if role == "method":
            metrics |= {"rank_auc/p_holm": 0.0015, "cost/share": 0.27}
        found.append(AuditLine(method, role, stratum, 120, 40, metrics, verdict))
    return found


def audit(request="random 10 %", names=("imitate", "fine_tune"), void=()):
    told = "distinguishable from retraining (p = 0.0015; rank AUC 0.720, zero 0.552)"
    found = lines("held-out references", "zero", 0.556)
    found += lines(names[0], "method", 0.72, told)
    found += lines(names[1], "method", 0.837, told)
    found += lines("original", "ceiling", 0.839)
    histogram = Histogram([0.5, 0.75, 1.0], [70.0, 50.0], [115.0, 5.0])
    every = ["held-out references", *names, "original"]
    return Audit(
        request,
        ["Held-out references against references: not told apart, as it must be.", "Originals: told apart, as it must be."],
        list(void),
        found,
        rank_aucs=dict.fromkeys(every, histogram),
        kloms=dict.fromkeys(every, histogram),
        rocs={name: {"fpr": [0.0, 0.01, 1.0], "tpr": [0.0, 0.1, 1.0]} for name in every},
        exposed={name: [Exposed("0f3a#2", "cat", 0.97, 4.0, -1.5)] for name in names},
        notes=["U-LiRA leaves one out."],
    )


def audited(*audits):
    audits = audits or (audit(),)
    requests = [Request(found.request, "random 10 %", 120, 1200, "ab" * 32) for found in audits]
    return Report("audit", "digits: 2 methods", "2026-11-21T12:00:00+00:00", "untrain", "audit", requests, audits=list(audits))


def hostile_audit():
    found = audit(EVIL[0], (EVIL[1], EVIL[6]), void=[EVIL[0]])
    for samples in found.exposed.values():
        samples[0].key, samples[0].label = EVIL[6], EVIL[3]
    return audited(found)

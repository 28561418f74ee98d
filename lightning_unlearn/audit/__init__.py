"""Audits over many models: per-sample attacks, distances of distributions, controls and verdicts."""

"""Chains of stages: run, run on many models at once, and what they are known by."""

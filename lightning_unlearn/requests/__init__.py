"""Requests: what a model went through, written so that it can be checked."""

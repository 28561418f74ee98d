"""Estimators of what a model that never saw a sample would say, and their mixtures."""

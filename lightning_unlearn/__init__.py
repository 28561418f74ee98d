"""Train image classifiers with PyTorch Lightning, make them forget chosen samples, and show how close that is to retraining."""

__version__ = "0.1.0"

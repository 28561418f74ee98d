"""One split judged: models to outputs to metrics."""

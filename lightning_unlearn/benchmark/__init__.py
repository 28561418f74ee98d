"""Methods compared: which, on what, with which settings, and beside which baselines."""

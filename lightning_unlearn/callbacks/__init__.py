"""Links of chains: callbacks that edit weights, guard a fit, or seed it."""

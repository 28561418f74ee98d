"""A model that leaves: its files, its card, and whether forgetting survives 8 bits."""

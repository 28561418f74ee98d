"""Files of weights: written whole, read without running anything that they hold, known by their content."""

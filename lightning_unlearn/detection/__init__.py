"""Finding training samples whose label is likely wrong."""

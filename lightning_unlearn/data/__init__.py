"""Data: keys, forget rules, splits, data sets, views and loaders."""

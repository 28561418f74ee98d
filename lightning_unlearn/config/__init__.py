"""Shipped configuration files, strict YAML, and errors of the parser in one line. Imports no torch."""

"""Reports: rows to tables, JSON, CSV and one self-contained HTML file. Imports no torch."""

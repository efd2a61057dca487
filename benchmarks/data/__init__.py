"""Fit and transform beside polars, DuckDB and a bare scan: rows a CPU second, and memory as the table grows."""

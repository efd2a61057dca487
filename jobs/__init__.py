"""Thin scripts: each is one step of the row's way, run here or by `ray job submit`."""

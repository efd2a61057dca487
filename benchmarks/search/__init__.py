"""A search for settings beside others that are given the same seconds."""

"""From the source to features: read, check, split, encode."""

"""From features to a proven network: loop, trainer, metrics, baseline, gate."""

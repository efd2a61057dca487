"""Thin scripts: each is one step of the row's way, run here or by `ray job submit`."""

import os

# Read when torch is loaded, so before any job's own imports: threads that wait for each other by spinning make a
# training three times slower where a service answers on the same CPUs (and no faster where nothing else runs).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

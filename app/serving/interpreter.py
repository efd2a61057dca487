"""How is Python set in a replica, where an event loop, the journal's thread and the loading of versions share it?"""

import gc
import sys

SWITCH_SECONDS = 0.0005
"""Longest time a thread keeps the interpreter while another waits: by default it is ten times that."""
COLLECT_AFTER = 50_000
"""Objects made until garbage is looked for: requests leave few cycles behind, and 700 would stop for them all the time."""


def prepare() -> None:
    """Set the interpreter once everything that lives as long as the replica is there; stops for some 10 ms."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.set_threshold(COLLECT_AFTER)
    gc.freeze()  # what is here now is not walked through at every collection


def settle() -> None:
    """Spare what has been loaded since from being walked through; does not look for garbage, which would stop everyone."""
    gc.freeze()

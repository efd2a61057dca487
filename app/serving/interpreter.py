"""How is Python set in a replica, where an event loop, the journal's thread and the loading of versions share it?"""

import gc
import sys

SWITCH_SECONDS = 0.0001
"""Longest time a thread keeps the interpreter while another waits: by default it is fifty times that. An event loop lets go
of it at every write to a socket, and has to wait that long to go on.
"""
COLLECT_AFTER = 200_000
"""Objects made, and not yet gone, until garbage is looked for. Requests leave few cycles behind, and those that wait for
the journal hold some ten objects each: at 50,000 they were looked through every second, for 15 ms.
"""


def prepare() -> None:
    """Set the interpreter once everything that lives as long as the replica is there; stops for some 10 ms."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.set_threshold(COLLECT_AFTER)
    gc.freeze()  # what is here now is not walked through at every collection


def settle() -> None:
    """Spare what has been loaded since from being walked through; does not look for garbage, which would stop everyone."""
    gc.freeze()

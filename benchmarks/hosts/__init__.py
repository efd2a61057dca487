"""A cluster of several hosts on one machine, to kill hosts and cut cables in."""

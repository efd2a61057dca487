"""The training loop beside one written by hand, and the network beside other learners."""

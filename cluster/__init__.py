"""Files that bring up clusters, and the check of them."""

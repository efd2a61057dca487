"""One page that shows the loop."""

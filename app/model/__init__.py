"""The network, its graph, and the bundle that carries it."""

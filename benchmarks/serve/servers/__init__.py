"""The peers: the same rows, checks, graph and answer, behind other servers."""

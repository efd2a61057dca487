"""Side by side with peers, and with the limit: what Evertrue costs and gains, measured on this machine."""

"""Where trials are measured: on this machine (`miner.loop`), or on the machines of a cluster."""

"""Where trials are measured: on this machine (`miner.session.loop`), or on the machines of a cluster."""

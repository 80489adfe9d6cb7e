"""A local network for developers: the embedded one served as JSON-RPC, or a validator beside us."""

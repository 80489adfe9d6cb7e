"""A mining session: its start, its loop, its goals, and the chain's best."""

"""The `miner` commands: parse, call, print."""

"""Proposers: what to try next. `base` is the interface, `options` the choice on the command line."""

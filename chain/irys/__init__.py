"""Irys: signed data items, receipts, a client of uploaders and gateways, and a local node."""

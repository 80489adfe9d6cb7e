"""Solana networks: what one must do, the embedded one, clusters over RPC, and how one is opened."""

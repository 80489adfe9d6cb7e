"""What moves money: transactions and their bounds, trades, and what an on-chain score means."""

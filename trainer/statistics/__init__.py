"""Pure statistics: comparing two arms, loss curves, stopping early."""

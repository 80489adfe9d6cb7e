"""What this machine can do for mining and verifying, line by line: what `miner doctor` and `verifier doctor` ask."""

from trainer.doctor.examine import examine

__all__ = ["examine"]

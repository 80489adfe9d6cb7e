"""The OpenResearch program for local networks: C source, its linker, and the images built from it."""

from __future__ import annotations

from importlib.resources import files

from solders.pubkey import Pubkey

INTERFACE = "0.1.0"  # the deployed program's version that `chain.program.interface` declares
PROGRAM_ID = Pubkey.from_string("ACfzPQJkUJ74bdnmvV6FmB8Me3s1cPA3ayWjt2vHRsv3")


def image(version: int = 0) -> bytes:
    """The program's ELF for SBPF `version` 0 (runs on every cluster of today) or 3; ValueError for another."""
    if version not in (0, 3):
        raise ValueError(f"SBPF version {version}: there are images for 0 and 3")
    return (files(__name__) / f"openresearch-v{version}.so").read_bytes()

"""Verification: fetch a proposal, replay it here, reach a verdict, attest and settle."""

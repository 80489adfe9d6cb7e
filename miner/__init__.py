"""The mining loop: propose a change, measure it, keep or discard it, submit what wins."""

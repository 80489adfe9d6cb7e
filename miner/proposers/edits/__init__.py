"""Structural edits of a train.py as syntax-tree transformations: a library that needs no model and no network."""

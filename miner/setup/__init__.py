"""Laying out a project to work on, and whether this machine can."""

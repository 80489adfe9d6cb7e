"""This machine: its class, its fitness to measure, locked environments, scratch folders."""

"""What a session keeps: its journal, its commits, records for other clients."""

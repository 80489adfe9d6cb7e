"""What people read about a project: its data, as text and as HTML."""

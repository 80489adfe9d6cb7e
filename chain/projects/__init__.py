"""Projects as they are published: their artifacts, how they are packed, and their accounts."""

"""What a session works with and when it ends: shared by its loop, its stakes and its machines."""

"""What the four packages share: files and locks, text made safe, the terminal view. Knows none of them."""

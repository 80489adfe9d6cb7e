"""One candidate judged: runs, this machine watched, early stops."""

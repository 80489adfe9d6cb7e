"""Two codes compared on one machine: trials, replays and holdout text."""

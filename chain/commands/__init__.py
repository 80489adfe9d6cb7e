"""The subcommands of `chain`, a module per group; each only parses, calls and prints."""

"""What a project's artifacts mean: protocol, bundle, benchmark, recipe, constants, metrics."""

"""The experiment: protocol, bundle, environment, one run of train.py and its measurement."""

"""One unconfined run: the process tree, its limits and its log, and the data that prepare.py makes."""

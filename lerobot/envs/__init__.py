"""Simulated environments: one file each, found by its name, which is also `--env.type`."""

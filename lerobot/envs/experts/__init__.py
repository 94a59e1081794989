"""Scripted experts of the environments, one file each; the SO-101's stands beside its physics, in `sim`."""

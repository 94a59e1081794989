"""Layouts of datasets from before format v3.0, seen through the eyes of v3.0; they are only read."""

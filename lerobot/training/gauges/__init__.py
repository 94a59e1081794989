"""Where time and memory go, what to do about it, and steps whose numbers are none."""

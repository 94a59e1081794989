"""One folder per policy, and what every policy shares."""

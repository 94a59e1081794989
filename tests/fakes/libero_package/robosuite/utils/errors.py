class RandomizationError(Exception):
    """No room for a thing."""

"""Steps between the world and a model."""

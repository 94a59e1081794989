"""Ground floor: types, names, errors, configuration. No torch, no model, no robot."""

"""Bricks: tensors in, tensors out; a brick knows no policy and no config."""

"""Checkpoints: what is saved of a run, beside the training, and how a resumed run gets it back."""

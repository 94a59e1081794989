"""Hyper-parameter search: many training runs, the best of which is told; `lerobot-tune`."""

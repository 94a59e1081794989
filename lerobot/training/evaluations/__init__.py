"""How good the policy is while it trains: on held-out frames, and in simulation beside the training."""

"""TD-MPC: a learned model of the world, planned in at every step."""

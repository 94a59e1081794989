"""A simulated SO-101 on a tabletop: geometry, kinematics, physics, a task and its expert (extra: `sim`)."""

"""A simulated SO-101 on a tabletop: geometry, kinematics, physics, pictures, a task and its expert. Needs `sim`."""

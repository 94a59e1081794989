"""A robot, and who drives it: a person, a policy, or a scripted expert."""

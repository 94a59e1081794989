"""A stand-in for the LIBERO package: its modules, its questions and its traps, one scene with a box."""

"""Learning from rewards while acting: an actor, what it has lived through, and a learner."""

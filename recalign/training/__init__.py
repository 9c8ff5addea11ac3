"""Models, the one Trainer subclass, rollouts, log-probabilities."""

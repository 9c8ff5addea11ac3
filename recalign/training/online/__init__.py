"""Training on the policy's own rollouts."""

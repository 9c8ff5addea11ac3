"""Log-probabilities of completions, with gradients."""

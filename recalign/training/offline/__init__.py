"""Training on the data's answers: token and preference objectives."""

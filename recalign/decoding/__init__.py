"""The inference engine: constrained sampling, beam search, exact search."""

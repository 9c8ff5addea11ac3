"""Title trie, list constraint, the inference engine, constrained sampling and beam search."""

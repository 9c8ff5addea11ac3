"""Built-in backbones: what computes the embeddings of added item tokens."""

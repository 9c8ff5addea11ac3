"""Built-in decoders: one file each, on the public api only."""

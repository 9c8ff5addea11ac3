"""Built-in objectives: one file each, on the public api only."""

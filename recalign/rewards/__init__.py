"""Built-in rewards: one file each, on the public api only."""

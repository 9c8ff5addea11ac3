"""What `recalign plugins check` looks at: that a plugin is documented, declared, and runs on made-up data."""

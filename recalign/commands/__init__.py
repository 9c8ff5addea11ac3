"""One thin module a command: its signature is the option list; heavy imports stay inside the function."""

"""Language models bound to a catalogue: loading, adapters, saving."""

"""The embedded dataset, small and with a tiny model: what plugins are tried on, and fixtures for their tests."""

"""The prepared dataset: format, splits and windows, catalogue, prompt templates, token layout."""

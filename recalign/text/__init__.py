"""Items and histories as tokens: prompt templates, identifiers, the prefix tree of titles."""

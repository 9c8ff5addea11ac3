"""Recipes: reading, planning and running their steps."""

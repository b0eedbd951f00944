"""Providers as values, one file each; the registry finds them by name."""

"""Platforms: one file each, wrapping what the rooms below do."""

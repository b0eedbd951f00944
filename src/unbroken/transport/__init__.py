"""The port to the world, and real HTTP behind it, sync and async."""

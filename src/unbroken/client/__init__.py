"""The drivers: the only place where sync and async differ."""

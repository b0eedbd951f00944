"""The public protocols over the same log, one file each: whatever has `routes` here is served."""

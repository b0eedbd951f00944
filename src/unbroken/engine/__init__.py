"""Attempts, deadlines and recovery as a state machine: no socket, clock, sleep or randomness."""

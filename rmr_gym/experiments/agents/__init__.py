"""Agents that see features of encoders, compared."""

"""Stable-Baselines3 agents on RMR features."""

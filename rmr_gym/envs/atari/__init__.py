"""Paired Atari environments: RAM and pixels of the same instant."""

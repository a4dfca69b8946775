"""Bouncing balls: physics, pixels, environments."""

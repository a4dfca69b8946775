"""Scores against the size of the latents (the paper's Figure 5)."""

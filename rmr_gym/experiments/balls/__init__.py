"""P pretrained on positions of balls: rollouts beside baselines, narrow latents."""

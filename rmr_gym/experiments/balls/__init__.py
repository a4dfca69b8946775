"""Bouncing balls: P pretrained on positions, and what it does in a model of frames."""

EXPERIMENTS = {
    "balls": "P pretrained on positions of balls: rollouts beside baselines, narrow latents.",
    "balls_natural": "P of ball positions inside a model of frames, beside its controls.",
}

"""Who plays: recording, players of graded skill, and agents of Stable-Baselines3."""

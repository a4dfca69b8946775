"""Encoder, processor, decoder: the models of Reasoning-Modulated Representations."""

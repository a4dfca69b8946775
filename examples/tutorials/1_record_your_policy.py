"""
Record with your own policy
===========================

A policy is any function from an observation to an action. Here it is a rule for Pong that reads
the RAM; a network or a model of Stable-Baselines3 takes its place without another change.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import rmr_gym
from rmr_gym.core.palette import palette_to_rgb
from rmr_gym.data.dataset import TransitionDataset

folder = Path(tempfile.mkdtemp())  # everything on this page is written here

# %%
# Bytes 51 and 54 of Pong's RAM hold the rows of our paddle and of the ball. Action 3 (right) moves
# the paddle up, action 4 (left) moves it down, and 0 does nothing.
BALL, PADDLE = 54, 51


def follow(observation):
    """Move the paddle to the row of the ball."""
    ball, paddle = int(observation["ram"][BALL]), int(observation["ram"][PADDLE])
    if ball == 0 or abs(ball - paddle) < 8:
        return 0
    return 3 if ball < paddle else 4


# %%
# Four episodes of at most 150 steps. Episodes that are in the folder already are kept, so that a
# recording that was stopped goes on when the same lines run again.
dataset = rmr_gym.record("Pong", folder / "pong", episodes=4, max_steps=150, policy=follow)
print(dataset)

# %%
# A column is read by its name; only the columns that are named are decompressed. Observations
# have one row more than actions, the observation after the last step.
loaded = TransitionDataset(folder / "pong").load(("pixels", "ram", "action"), episodes=[0])
for name in ("pixels", "ram", "action"):
    print(name, loaded[name].dtype, loaded[name].shape)

# %%
# The rows of ball and paddle in the RAM, and the last screen of the episode. Screens are stored
# as indices of ALE's palette, from which RGB and gray are rebuilt exactly.
figure, (left, right) = plt.subplots(1, 2, width_ratios=[3, 1], figsize=(8, 3))
left.plot(loaded["ram"][:, BALL], ".", label="ball")
left.plot(loaded["ram"][:, PADDLE], label="paddle")
left.set(xlabel="step", ylabel="row in the RAM")
left.legend()
right.imshow(palette_to_rgb(loaded["pixels"][-1]), interpolation="nearest")
right.set_axis_off()
figure.tight_layout()

# %%
# On the command line the same is ``rmr-gym record --game Pong --policy module:follow --out
# data/pong --episodes 4 --max-steps 150``, where ``module.py`` in this folder holds the function.
# :doc:`/datasets` says how to check, join and export data sets, and :doc:`/players` who plays
# when no policy is given.

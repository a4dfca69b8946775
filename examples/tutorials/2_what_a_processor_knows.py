"""
Train a processor and look at what it knows
===========================================

A processor P learns from the RAM of a game and the actions how the RAM changes. This page trains
one for Pong for 300 steps and compares its predictions with copying: with the RAM as it was.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import rmr_gym
from rmr_gym.core.options import overridden
from rmr_gym.facade import game_of
from rmr_gym.runs.store import Store
from rmr_gym.stages.presets import AtariPreset

folder = Path(tempfile.mkdtemp())  # everything on this page is written here

# %%
# Record
# ------
# The preset ``smoke`` uses 18 episodes of 200 steps: 12 to train on, 6 to score on. Players of
# graded skill take turns, from random play to good play.
data = folder / "pong"
rmr_gym.record("Pong", data, episodes=18, max_steps=200)

# %%
# Pretrain
# --------
# ``settings`` changes single settings of a preset, by their names on the command line. The record
# of the folder that is returned holds the scores; the rows of the model "copy" are what P must
# beat.
settings = {"pretraining.steps": 300, "pretraining.checkpoints": (100, 200, 300), "model.dim": 32}
processor = rmr_gym.pretrain(
    data, folder / "p", preset="smoke", settings=settings, root=folder / "runs"
)
scores = pd.read_json(processor / "record.json", typ="series")["scores"]
print(pd.DataFrame(scores)[["model", "step", "bit_f1", "slot_accuracy"]].to_string(index=False))

# %%
# Bit F1 counts the bits of those bytes that vary (more than 0.6 nats of entropy); slot accuracy
# is the share of bytes of which all eight bits are right.
#
# Several steps ahead
# -------------------
# P can go on from its own predictions. A stage of the package scores that: calling a stage
# computes nothing and gives a task, a store computes tasks, and finds what it has computed
# before. So P is not trained again here.
preset = overridden(AtariPreset(**AtariPreset.proposals("smoke")), settings)
game = game_of(data, preset)
rolled = Store(folder / "runs" / "store").compute(game.rolled())
ahead = pd.DataFrame(rolled.record["rows"]).fillna({"model": "P"})
table = ahead.pivot(index="k", columns="model", values="bit_f1")
print(table.round(3).to_string())

# %%
axes = table.plot(marker="o", logx=True, figsize=(6, 3))
axes.set(xlabel="steps ahead", ylabel="bit F1", xticks=table.index, xticklabels=table.index)
plt.tight_layout()

# %%
# One step ahead P predicts better than copying. Further ahead its errors add up: after so short a
# training it is no better than the RAM of the start. ``--preset laptop`` pretrains for 2,000 steps
# on 48 episodes; :doc:`/findings` has results of longer trainings on more games.

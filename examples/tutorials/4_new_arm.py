"""
Write a new arm
===============

An arm of an experiment says where P comes from and whether it learns. RMR's P is pretrained and
frozen; C-SWM's starts afresh and is trained. The new arm of this page starts from the pretrained
P and trains it on.
"""

import tempfile
from pathlib import Path

import pandas as pd

import rmr_gym
from rmr_gym.facade import game_of
from rmr_gym.runs.store import Store
from rmr_gym.stages.presets import ARMS, Arm, AtariPreset

folder = Path(tempfile.mkdtemp())  # everything on this page is written here

# %%
# All arms stand in one table, and a new one is an entry. A line in ``rmr_gym/stages/presets.py``
# makes it permanent: every command and every experiment then knows it.
ARMS["tuned_p"] = Arm(pretrained=True)

# %%
# A data set, and the tasks of its game. The preset is the smallest one, made smaller still.
rmr_gym.record("Pong", folder / "pong", episodes=18, max_steps=100)
preset = AtariPreset(**AtariPreset.proposals("smoke"))
game = game_of(folder / "pong", preset).with_preset(
    model={"dim": 16}, natural={"checkpoints": (10,)}, probing={"probes": ("ridge",)}
)

# %%
# ``trained`` gives the task of an arm's encoder, ``probed`` that of its probe. What a task needs
# (the pretrained P here) is computed first, and once for all arms.
store = Store(folder / "store")
rows = []
for arm in ("rmr", "cswm", "tuned_p", "untrained"):
    for row in store.compute(game.probed(game.trained(arm, seed=0))).record["rows"]:
        rows.append({"arm": arm, **row})
print(pd.DataFrame(rows)[["arm", "step", "probe", "micro_f1"]].to_string(index=False))

# %%
# All arms of a seed start from the same encoder and see the same batches, so that they differ in
# P alone. Ten gradient steps show no difference between arms, and one seed allows no test:
# ``rmr-gym run compare --games Pong --preset laptop`` trains for 300 steps with 5 seeds, and
# tests.
#
# :doc:`/adding_a_thing` shows new games, objectives, probes and experiments.
del ARMS["tuned_p"]

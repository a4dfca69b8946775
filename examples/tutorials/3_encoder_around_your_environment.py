"""
Put an encoder around your environment
======================================

A pretrained encoder turns the screen of a game into 128 slots, one vector a byte of the RAM. It
was trained without RAM; this page measures how much of the state can be read off its slots.
"""

import ale_py
import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np

from rmr_gym.wrappers.features import RMRBeliefWrapper, RMRObservationWrapper

gym.register_envs(ale_py)

# %%
# The wrapper goes around any environment of ALE. The encoder is the one that comes with the
# package for the game; a folder of your own does as well.
env = RMRObservationWrapper(gym.make("ALE/Pong-v5"), "pong")
features, _ = env.reset(seed=0)
print(env.observation_space)

# %%
# ``keep`` leaves entries of the observation beside the features. Here 600 random steps give pairs
# of features and RAM. The wrapper sees pixels alone; RAM is kept for the measurement.
env = RMRObservationWrapper(gym.make("rmr/Pong-v0"), "pong", output="flat", keep=("ram",))
env.action_space.seed(0)
observation, _ = env.reset(seed=0)
features, memory = [], []
for _ in range(600):
    observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
    features.append(observation["features"])
    memory.append(observation["ram"])
    if terminated or truncated:
        env.reset()
features, memory = np.stack(features), np.stack(memory)

# %%
# Ridge regression from the features to the row of the opponent's paddle (byte 50), fitted to the
# first 400 steps and tested on the others.
target = memory[:, 50].astype(float)
train, test = slice(0, 400), slice(400, None)
mean, centre = features[train].mean(0), target[train].mean()
rows = features[train] - mean
weights = rows.T @ np.linalg.solve(rows @ rows.T + 10 * np.eye(400), target[train] - centre)
read = (features[test] - mean) @ weights + centre
print(f"correlation with the truth: {np.corrcoef(read, target[test])[0, 1]:.3f}")

# %%
figure, axes = plt.subplots(figsize=(7, 2.5))
axes.plot(target[test], label="RAM")
axes.plot(read, label="read off the slots")
axes.set(xlabel="step", ylabel="row of the opponent")
axes.legend()
figure.tight_layout()

# %%
# A belief remembers: P predicts the next RAM from the belief before and the action, and the frame
# corrects the prediction. It shows the probability of each bit of the RAM.
env = RMRBeliefWrapper(gym.make("rmr/Pong-v0"), keep=("ram",))
env.action_space.seed(0)
observation, _ = env.reset(seed=0)
for _ in range(50):
    observation, *_ = env.step(env.action_space.sample())
bits = np.unpackbits(observation["ram"]).reshape(128, 8)
print("bits that are right after 50 steps:", ((observation["features"] > 0.5) == bits).mean())

# %%
# :doc:`/wrappers` lists the options, the wrappers of vectors, and how features get into an agent
# of Stable-Baselines3.

"""
Foreign and duplicated networks
===============================

You are given networks. Were they trained as those of a population were, or is one of them foreign, or a copy of a
network that you have? The log-density of a flow answers the first question, the distance to the nearest known network
the second. Both answers are p-values, by networks of held-out runs.
"""

# %%
# A population and its flow
# -------------------------
# The held-out runs show what fresh networks look like. A level of 1% needs 99 of them, and the flow is not fitted to
# them.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import PermutationAligner, ScaleCanonicalizer, Task, WeightArray, WeightFlow
from wsflow.running import unflatten

task = wsflow.load_task("iris")
settings = {"hidden": (8,), "epochs": 60, "learning_rate": 0.01}
train = wsflow.train_population(task, n_runs=300, **settings).weights
held_out = wsflow.train_population(task, n_runs=100, first_run=300, **settings).weights

flow = WeightFlow("geometric", task=task, max_iter=300, random_state=0)
model = make_pipeline(PermutationAligner(), ScaleCanonicalizer(), flow).fit(train)

# %%
# Suspects
# --------
# Forty fresh networks, of the same training with other initial weights, and ten of each other kind. The copies are
# networks of the population whose neurons are in another order and on another scale, with a little noise: compared
# number by number, they are far from every network of the population.

rng = np.random.default_rng(0)
recipe = {"n_runs": 10, "first_run": 400, **settings}
shuffled = Task(task.X, rng.permutation(task.y), validation=task.validation, test=task.test)


def disguised(weights):
    """The same functions with neurons permuted and scaled, and noise of 2% on the weights."""
    rows = torch.from_numpy(np.array(weights))
    hidden, bias, out, last = (tensor.numpy() for tensor in unflatten(rows, weights.architecture).values())
    order, scale = rng.permutation(hidden.shape[1]), rng.uniform(0.5, 2, hidden.shape[1])
    parts = (hidden[:, order] * scale[:, None], bias[:, order] * scale, out[:, :, order] / scale, last)
    rows = np.concatenate([part.reshape(len(weights), -1) for part in parts], axis=1)
    return weights.like((rows * rng.normal(1, 0.02, rows.shape)).astype("float32"))


suspects = {
    "fresh": wsflow.train_population(task, **{**recipe, "n_runs": 40, "first_run": 500}).weights,
    "sampled by the flow": wsflow.sample(model, 10, random_state=0),
    "copies in disguise": disguised(train[:10]),
    "trained for 1 epoch": wsflow.train_population(task, **{**recipe, "epochs": 1}).weights,
    "trained for 200 epochs": wsflow.train_population(task, **{**recipe, "epochs": 200}).weights,
    "trained on shuffled labels": wsflow.train_population(shuffled, **recipe).weights,
    "other initial weights": wsflow.train_population(task, **recipe, initialisation="uniform").weights,
}

# %%
# One call
# --------
# ``detect`` takes the suspects, the population, the held-out runs and a score. Each network gets two p-values: the
# share of held-out networks that are as unlikely, and the share of those that are as near to a known network. Of fresh
# networks, one in a hundred is flagged by chance for each of the two. That is an average over sets of a hundred
# held-out runs: with a given set it may well be two or three.

every = WeightArray(np.concatenate(list(suspects.values())), train.architecture)
found = wsflow.detect(every, train, held_out, task, model.score_samples, level=0.01)

kinds = np.repeat(list(suspects), [len(weights) for weights in suspects.values()])
print(f"{'flagged':28}" + "".join(f"{kind:>12}" for kind in found))
for name, weights in suspects.items():
    counts = (f"{flagged.flags[kinds == name].sum()} of {len(weights)}" for flagged in found.values())
    print(f"{name:28}" + "".join(f"{count:>12}" for count in counts))

# %%
# Two p-values make a map: networks on the left are foreign, networks at the bottom are copies, and those of the
# population are everywhere else. The dashed lines are the level.

fig, ax = plt.subplots(figsize=(7.6, 4.8), layout="constrained")
colours = ("#009E73", "#0072B2", "#D55E00", "#8C8C8C", "#E69F00", "#000000", "#CC79A7")
jitter = rng.uniform(0.94, 1.06, (2, len(every)))
for name, colour in zip(suspects, colours, strict=True):
    rows = kinds == name
    p_foreign, p_duplicate = (found[kind].p_values[rows] for kind in ("foreign", "duplicate"))
    ax.loglog(p_foreign * jitter[0, rows], p_duplicate * jitter[1, rows], "o", color=colour, alpha=0.7, label=name)
for line in (ax.axvline, ax.axhline):
    line(0.014, color="#8C8C8C", ls="--", lw=1)
ax.set(xlabel="p-value: as likely as held-out networks", ylabel="p-value: as far from known ones")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
plt.show()

# %%
# What it does not see
# --------------------
# The test finds unlikely networks, and a foreign network need not be unlikely: the flow's own samples were not trained,
# and are meant to pass. A density depends on where networks lie, not on what they do, so that networks which were
# trained otherwise and end up in the same place pass too: here those whose initial weights had another distribution.

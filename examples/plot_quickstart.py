"""
From trained networks to new ones
=================================

A population of small networks is trained, its symmetries are removed, and a flow learns its distribution. The flow
then draws new networks, which we run, score and judge. It takes less than a minute; ``wsflow demo`` does
the same with 2,000 networks, and far better samples.
"""

# %%
# A population
# ------------
# Networks of one architecture, trained on one task from their own initial weights. All of them are trained
# at once. The last runs are for judging only: the flow never sees them.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import PermutationAligner, ScaleCanonicalizer, WeightFlow

task = wsflow.load_task("iris")
settings = {"hidden": (8,), "epochs": 60, "learning_rate": 0.01}
population = wsflow.train_population(task, n_runs=300, **settings)
held_out = wsflow.train_population(task, n_runs=100, first_run=300, **settings)
population

# %%
# The weights are an array, one network a row, that knows what its columns are.

weights = population.weights
print(weights.shape, weights.architecture, weights.runs[:5])

# %%
# Symmetries
# ----------
# The order of hidden neurons says nothing, and neither does the scale of a ReLU neuron, which its outgoing weights can
# make up for. The first two steps of the pipeline choose one representative of all these equal networks: neurons are
# permuted to lie close to a reference, and their incoming weights get norm 1. The function of each network
# stays what it was.

aligned = make_pipeline(PermutationAligner(), ScaleCanonicalizer()).fit_transform(weights)

# %%
# Each place on the horizontal axis is the weight from one input to one hidden neuron, over all networks. Before, all
# neurons look alike; afterwards each has a character.

fig, axes = plt.subplots(1, 2, figsize=(9, 3), sharex=True, layout="constrained")
columns = weights.architecture.slices["0.weight"]
for ax, values, title in zip(axes, (weights, aligned), ("as trained", "aligned, canonical"), strict=True):
    first = np.asarray(values)[:, columns]
    ax.plot(np.percentile(first, [90, 50, 10], axis=0).T, ".", label=["90%", "50%", "10%"])
    ax.set(title=title, xlabel="weight of the first layer")
axes[0].set_ylabel("quantile over networks")
axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
plt.show()

# %%
# A flow
# ------
# The flow lives on the manifold of the canonical networks: a sphere for each hidden neuron, and a Euclidean last
# layer. It is the last step of a scikit-learn pipeline. The task tells it which directions of weight space matter.

flow = WeightFlow(geometry="geometric", task=task, max_iter=400, random_state=0)
model = make_pipeline(PermutationAligner(), ScaleCanonicalizer(), flow)
model.fit(weights)

# %%
# New networks
# ------------
# Samples are networks that run: rows of weights, or modules of torch.

new = wsflow.sample(model, 100, random_state=0)
print(new.to_modules()[0])

# %%
# The flow knows how likely a network is. The nearer held-out runs come to those it learned from, the less it has
# memorised; random networks should be far below. These are medians of the log-density.

random = weights.like(np.random.default_rng(0).normal(scale=np.std(weights), size=weights.shape))
for name, networks in {"training": weights, "held-out": held_out.weights, "sampled": new, "random": random}.items():
    print(f"{name:10}{np.median(model.score_samples(networks[:50])):8.1f}")

# %%
# Evidence
# --------
# A generator that copies its training networks would have their accuracy. So novelty and dispersion stand beside it,
# both relative to networks of held-out runs, and so do trivial generators, the nulls.

report = wsflow.evaluate(new, weights, held_out.weights, task, random_state=0)
for name, row in {"training": report.training, "samples": report.samples, **report.nulls}.items():
    print(f"{name:24}" + "".join(f"{key} {row[key]:6.3f}   " for key in report.headline))

# %%
# What follows from these numbers, in words:

print("\n".join(report.verdict))

# %%
# And as a figure.

from wsflow.plotting import EvaluationDisplay

fig, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
EvaluationDisplay(report, curve=vars(flow.history_)).plot(axes=axes)
plt.show()

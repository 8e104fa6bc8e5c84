"""
From trained networks to new ones
=================================

A population of small networks is trained, its symmetries are removed, and a flow learns its distribution. The flow
then draws new networks, which we run, score and judge. It takes less than a minute; ``wsflow demo`` does
the same with 2,000 networks, and its samples are far better.
"""

# %%
# A population
# ------------
# Networks of one architecture, each trained on the same task from its own initial weights. All of them are trained
# at once. The held-out runs are for judging only: the flow never sees them.

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
# The weights are an array, one network a row, with the architecture and the run of each row.

weights = population.weights
print(weights.shape, weights.architecture, weights.runs[:5])

# %%
# Symmetries
# ----------
# The order of hidden neurons does not change the function of a network, and neither does the scale of a ReLU neuron, if
# its outgoing weights are divided by it. The first two steps of the pipeline choose one representative of all these
# equal networks: neurons are permuted to lie close to a reference, and their incoming weights get norm 1. The function
# of each network stays what it was.

aligned = make_pipeline(PermutationAligner(), ScaleCanonicalizer()).fit_transform(weights)

# %%
# Each place on the horizontal axis is the weight from one input to one hidden neuron, over all networks. Before, all
# neurons look alike; afterwards each has a distribution of its own.

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
# The flow lives on the manifold of the canonical networks: a sphere for each hidden neuron, and a Euclidean last layer.
# It is the last step of a scikit-learn pipeline. Errors in directions that change the outputs on the task's inputs
# count more.

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
# The flow has a log-density. The smaller its difference between training networks and held-out runs, the less the flow
# has memorised; random networks should be far below both. These are medians.

random = weights.like(np.random.default_rng(0).normal(scale=np.std(weights), size=weights.shape))
for name, networks in {"training": weights, "held-out": held_out.weights, "sampled": new, "random": random}.items():
    print(f"{name:10}{np.median(model.score_samples(networks[:50])):8.1f}")

# %%
# Evidence
# --------
# A generator that copies its training networks would have their accuracy. So the report has novelty and dispersion too,
# both relative to networks of held-out runs, and compares samples with trivial generators, the nulls.

report = wsflow.evaluate(new, weights, held_out.weights, task, random_state=0)
for name, row in {"training": report.training, "samples": report.samples, **report.nulls}.items():
    print(f"{name:24}" + "".join(f"{key} {row[key]:6.3f}   " for key in report.headline))

# %%
# The verdict says what follows from these numbers:

print("\n".join(report.verdict))

# %%
# And as a figure.

from wsflow.plotting import EvaluationDisplay

fig, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
EvaluationDisplay(report, curve=vars(flow.history_)).plot(axes=axes)
plt.show()

"""
Merging two networks
====================

Two networks that were trained independently on the same digits have learned the same, but in another order: their
hidden neurons do not correspond, and halfway between their weights there is no good network. After alignment there is
one, and the two can be merged.
"""

# %%
# Two training runs
# -----------------
# Two networks are trained from different initialisations, on scikit-learn's digits; or on MNIST, if the environment
# variable ``WSFLOW_DATA`` names the folder that has it.

import os

import matplotlib.pyplot as plt

import wsflow
from wsflow import PermutationAligner
from wsflow.evaluation.predictive import predict

mnist = "WSFLOW_DATA" in os.environ
task = wsflow.load_task("mnist" if mnist else "digits")
settings = {"epochs": 4 if mnist else 20, "learning_rate": 0.003, "random_state": 0}
networks = wsflow.train_population(task, hidden=(128, 128), n_runs=2, **settings).weights
a, b = networks[:1], networks[1:]
predict(networks, task.test).scores

# %%
# The line between them
# ---------------------
# On the straight line between the weights of two networks the loss rises. The loss barrier is its largest excess over
# the dashed line, the straight line between the losses of both.

fig, ax = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
wsflow.plot_path(a, b, task, ax=ax)
plt.show()

# %%
# Alignment
# ---------
# The order of hidden neurons is a symmetry: permuted networks are the same functions. The aligner chooses
# the order in which each network is closest to a reference, here the first network. Given the task, it also looks at
# what the neurons do on the data, and selects what has the lowest loss halfway to the reference.

by_weights = PermutationAligner(method="weight", reference="first").fit_transform(networks)
with_data = PermutationAligner(task=task, reference="first", random_state=0).fit_transform(networks)

fig, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
paths = {
    "as trained": (networks, "#E69F00"),
    "by weights": (by_weights, "#009E73"),
    "with data": (with_data, "#0072B2"),
}
for ax, quantity in zip(axes, ("loss", "score"), strict=True):
    for label, (pair, colour) in paths.items():
        wsflow.plot_path(pair[:1], pair[1:], task, quantity=quantity, ax=ax, label=label, colour=colour)
plt.show()

# %%
# The aligned networks are what they were.

print(predict(networks, task.test).scores, predict(with_data, task.test).scores)

# %%
# Merging
# -------
# The merged network is the mean of the two. The mean loses some of the variance of activations, which REPAIR (Jordan
# et al. 2023) gives back: it makes the mean and standard deviation of each hidden neuron, on the data, what they are in
# the two networks on average. Networks with batch norms have their statistics gathered anew.

for label, (pair, _) in paths.items():
    merged, repaired = wsflow.merge(pair), wsflow.merge(pair, task, repair=True)
    accuracies = [predict(network, task.test).scores[0] for network in (merged, repaired)]
    print(f"{label:12} mean {accuracies[0]:.3f}   with REPAIR {accuracies[1]:.3f}")

# %%
# The merged network is a row of weights like any other, and can be made a module.

wsflow.merge(with_data, task, repair=True).to_modules()[0]

# %%
# Many networks
# -------------
# Barriers between all pairs of five networks, before and after they are aligned with the first one: low to the first,
# and lower than before among the others. Their mean is a network too.

several = wsflow.train_population(task, hidden=(128, 128), n_runs=5, **settings).weights
aligned = PermutationAligner(task=task, reference="first", random_state=0).fit_transform(several)
fig, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
largest = None
for ax, weights, title in zip(axes, (several, aligned), ("as trained", "aligned"), strict=True):
    matrix = wsflow.plot_barrier_matrix(weights, task, n_points=5, ax=ax, largest=largest).matrix
    ax.set_title(title)
    # the same colours in both
    largest = matrix.losses.max()
plt.show()
print("merged, as trained:", predict(wsflow.merge(several), task.test).scores)
print("merged, aligned:   ", predict(wsflow.merge(aligned), task.test).scores)

# %%
# The shape of a path says more than its barrier: whether the loss falls all the way, by how much it rises at most,
# and where it is convex (Lim et al. 2024). Here are the paths from the first network to the others.

from wsflow.evaluation.connectivity import loss_path

for label, weights in {"as trained": several, "aligned": aligned}.items():
    summary = loss_path(weights[:1], weights[1:], task).summary()
    print(f"{label:12}" + "   ".join(f"{name} {value:.2f}" for name, value in summary.items()))

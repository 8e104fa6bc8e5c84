"""
From one task to another
========================

A flow of networks for one task can serve another: its samples can be used as they are, guided by the loss of the new
task while they are drawn, or trained further. All three are compared here with what they have to beat: networks that
start from random weights.
"""

# %%
# Two tasks
# ---------
# The old task is scikit-learn's digits. In the new one the images are moved by one pixel, and there are only 100 to
# learn from. A flow is fitted to networks of the old task.

import copy

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import Descent, Guidance, PermutationAligner, Task, WeightFlow
from wsflow.evaluation.predictive import predict
from wsflow.running.initialisation import uniform

X, y = load_digits(return_X_y=True)
known, unseen, targets, unseen_targets = train_test_split(X / 16, y, test_size=0.4, random_state=0)


def moved(images):
    """Images moved to the right by one pixel."""
    return np.roll(images.reshape(-1, 8, 8), 1, axis=2).reshape(-1, 64)


old = Task(known, targets, test=Task(unseen, unseen_targets))
new = Task(moved(known)[:100], targets[:100], test=Task(moved(unseen), unseen_targets))
settings = {"hidden": (12,), "epochs": 10, "learning_rate": 0.01, "initialisation": "uniform"}
trained = wsflow.train_population(old, n_runs=300, **settings).weights
flow = WeightFlow("euclidean", task=old, max_iter=200, random_state=0)
model = make_pipeline(PermutationAligner(), flow).fit(trained)

# %%
# Samples as they are
# -------------------
# Networks of the old task are better than chance on the new one without any gradient: chance is one in ten.

samples = wsflow.sample(model, 20, random_state=0)
for name, task in {"old task": old, "new task": new}.items():
    print(f"{name}: accuracy of samples {predict(samples, task.test).scores.mean():.3f}")

# %%
# Guided samples
# --------------
# A ``Guidance`` descends the loss of the new task on minibatches, and its ``Descent`` says with how many gradients, and
# how. Guidance is training, so that it needs two comparisons. One is guidance alone: the same gradients from the same
# source, with the flow's velocity set to zero. (The source is a Gaussian that was fitted to the old networks, so that
# it has learned something too.) The other is SGD and Adam from random networks, each with the best of three learning
# rates, on as many minibatches of the same size. The rates are chosen on the test data itself, in favour of random
# networks.


class Still(torch.nn.Module):
    """No velocity at all."""

    def forward(self, x, t):
        return torch.zeros_like(x)


alone = copy.deepcopy(model)
alone[-1].model_.flow.velocity = Still()
untrained = uniform(trained.architecture, 20, torch.Generator().manual_seed(0))
untrained = trained[:20].like(untrained.numpy())
RATES = {"sgd": (0.03, 0.1, 0.3), "adam": (0.01, 0.03, 0.1)}


def best(optimizer, n_steps):
    """The accuracy of random networks after some steps, at the best of three rates."""
    curves = [
        wsflow.learning_curves(untrained, new, n_steps=n_steps, every=n_steps, optimizer=optimizer, learning_rate=rate)
        for rate in RATES[optimizer]
    ]
    return max(curve.scores[-1].mean() for curve in curves)


budgets = (4, 12, 36)
rows = {name: [] for name in ("guided flow", "guidance alone", "sgd", "adam")}
for n_gradients in budgets:
    descent = Descent(
        n_gradients, flow_steps=0, optimizer="gradient", natural=True, rate=0.5, cooling="cosine", clip=1.0,
        standardize=True,
    )  # fmt: skip
    guidance = Guidance(new, batch_size=64, descent=descent)
    for name, source in {"guided flow": model, "guidance alone": alone}.items():
        guided = wsflow.sample(source, 20, random_state=0, guidance=guidance)
        rows[name].append(predict(guided, new.test).scores.mean())
    for optimizer in RATES:
        rows[optimizer].append(best(optimizer, n_gradients))

print("gradients".ljust(16), *(f"{n:6}" for n in budgets))
for name, values in rows.items():
    print(name.ljust(16), *(f"{value:6.3f}" for value in values))

# %%
# ``natural=True`` takes natural gradients, each of which costs more than a gradient of SGD or Adam and does more: what
# is counted here is minibatches, not seconds. The difference between the first two lines is what the flow's velocity
# adds: where there is none, it is the fitted Gaussian and the gradients that help.

fig, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
for (name, values), colour in zip(rows.items(), ("#0072B2", "#8C8C8C", "#E69F00", "#009E73"), strict=True):
    ax.plot(budgets, values, "o-", color=colour, label=name)
ax.set(xscale="log", xlabel="gradients", ylabel="accuracy on the new task", xticks=budgets)
ax.set_xticks(budgets, [str(n) for n in budgets])
ax.minorticks_off()
ax.legend(frameon=False)
plt.show()

# %%
# Samples as initialisation
# -------------------------
# The same training from three starts: random networks, networks of the old task, and samples. On inputs of the new task
# the neurons of the old networks may be saturated, which training then has to undo. ``standardized`` brings neurons to
# the scale of the new inputs, and outputs near zero. It uses inputs only, and is applied to random networks too.

from wsflow.objectives.lsuv import standardized


def at_scale(weights):
    """Networks at the scale of the new task's inputs."""
    rows = torch.from_numpy(np.array(weights, dtype=np.float32))
    return weights.like(standardized(rows, weights.architecture, torch.from_numpy(new.X).float()).numpy())


starts = {"random": untrained, "trained on the old task": trained[:20], "samples": samples}
fig, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
for ax, change, title in zip(axes, (lambda w: w, at_scale), ("as they are", "standardized"), strict=True):
    for (name, start), colour in zip(starts.items(), ("#8C8C8C", "#E69F00", "#0072B2"), strict=True):
        curve = wsflow.learning_curves(change(start), new, n_steps=80, every=4, learning_rate=0.1)
        ax.plot(curve.steps, curve.scores.mean(1), color=colour, label=name)
        print(f"{title:12} {name:24} steps of SGD to an accuracy of 0.8: {curve.steps_to(0.8):5.1f}")
    ax.set(title=title, xlabel="steps of SGD")
axes[0].set_ylabel("accuracy on the new task")
axes[1].legend(frameon=False)
plt.show()

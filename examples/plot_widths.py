"""
Another hidden width
====================

A flow that was fitted to networks of one hidden width draws networks of another, without new training. They are
compared with narrow samples, with narrow samples that were only padded to the new width, and with wide networks that
were trained.
"""

# %%
# A flow of narrow networks
# -------------------------
# Networks of 8 hidden neurons, on scikit-learn's digits.

import numpy as np
import torch
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import Architecture, PermutationAligner, WeightFlow
from wsflow.evaluation.predictive import predict
from wsflow.models.options import NeuronTransformer
from wsflow.running import unflatten

task = wsflow.load_task("digits")
settings = {"epochs": 15, "learning_rate": 0.01, "initialisation": "uniform"}
population = wsflow.train_population(task, hidden=(8,), n_runs=300, **settings)
flow = WeightFlow("euclidean", task=task, max_iter=200, random_state=0)
model = make_pipeline(PermutationAligner(), flow).fit(population.weights)
narrow = wsflow.sample(model, 20, random_state=0)
narrow.architecture

# %%
# Wide networks
# -------------
# The architecture is all that changes in the call.

wide = wsflow.sample(model, 20, random_state=0, architecture=Architecture.mlp([64, 32, 10]))
wide.architecture

# %%
# Neurons have names in this flow, since the aligner has given each its place. A network of 32 neurons is then made of 4
# sampled networks of 8, and the next layer takes the mean over neurons of the same name. With one hidden layer its
# outputs are the mean of those of the 4 networks: an ensemble in one network. So it should be better than a narrow
# sample.
#
# Padding gives a wide network that is no better than a narrow one: each neuron of a narrow sample is split into 4 equal
# ones with a quarter of the outgoing weights each, which is the same function.


def padded(networks, times):
    """Wider networks, the same functions: neurons are repeated, and their outgoing weights divided."""
    hidden, bias, out, last = unflatten(torch.from_numpy(np.array(networks)), networks.architecture).values()
    parts = (hidden.tile(1, times, 1), bias.tile(1, times), out.tile(1, 1, times) / times, last)
    return torch.cat([part.flatten(1) for part in parts], 1).numpy()


same = wsflow.WeightArray(padded(narrow, 4), wide.architecture)

# %%
# The average is that of all networks of a row. Where a wide network is an ensemble itself, averaging gains less.

trained = wsflow.train_population(task, hidden=(32,), n_runs=20, **settings).weights
rows = {
    "8 neurons, trained": population.weights[:20],
    "8 neurons, sampled": narrow,
    "32 neurons, padded": same,
    "32 neurons, sampled": wide,
    "32 neurons, trained": trained,
}


def show(name, weights):
    """Accuracy and loss of networks, and the accuracy of their average."""
    found = predict(weights, task.test)
    average = (found.average.argmax(1) == task.test.y).mean()
    print(f"{name:32} accuracy {found.scores.mean():.3f}   loss {found.losses.mean():.3f}   average {average:.3f}")


for name, weights in rows.items():
    show(name, weights)

# %%
# Neurons without names
# ---------------------
# With ``identity=None`` the flow treats all neurons alike, and works at any width by itself, narrower ones too. It
# cannot tell neurons apart by names, which makes the law harder to learn. Here its source is one of exchangeable
# neurons.

settings = {"velocity": NeuronTransformer(identity=None), "source": "exchangeable", "max_iter": 150}
nameless = WeightFlow("euclidean", task=task, random_state=0, **settings).fit(population.weights)
for width in (6, 8, 32):
    networks = nameless.sample(20, random_state=0, architecture=Architecture.mlp([64, width, 10]))
    show(f"without names, {width} neurons", networks)

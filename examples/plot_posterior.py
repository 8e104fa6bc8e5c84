"""
A posterior predictive
======================

The average of the predictions of many networks has a better likelihood than one network, and is less sure where it is
wrong. Here the networks are samples of a flow, compared with a deep ensemble: as many networks that were trained. The
costs of both are printed too.
"""

# %%
# A task with foreign inputs
# --------------------------
# The digits 0 to 7 are the task. The digits 8 and 9 are kept away from all training: at the end the networks are asked
# about them, and ought to be unsure.

import time

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import PermutationAligner, Task, WeightFlow

X, y = load_digits(return_X_y=True)
known = y < 8
rest, X_test, y_rest, y_test = train_test_split(X[known] / 16, y[known], test_size=0.3, random_state=0)
X_train, X_valid, y_train, y_valid = train_test_split(rest, y_rest, test_size=0.2, random_state=0)
task = Task(X_train, y_train, validation=Task(X_valid, y_valid), test=Task(X_test, y_test))
foreign = X[~known] / 16

# %%
# Two sources of networks
# -----------------------
# A population is trained and a flow fitted to it; the deep ensemble is a hundred further runs with the same settings.


def timed(function, *arguments, **keywords):
    """What a call gives, and its seconds."""
    start = time.perf_counter()
    return function(*arguments, **keywords), time.perf_counter() - start


settings = {"hidden": (16,), "epochs": 12, "learning_rate": 0.01, "initialisation": "uniform"}
population, training = timed(wsflow.train_population, task, n_runs=300, **settings)
ensemble, _ = timed(wsflow.train_population, task, n_runs=100, first_run=300, **settings)
flow = WeightFlow("euclidean", task=task, max_iter=250, random_state=0)
model, fitting = timed(make_pipeline(PermutationAligner(), flow).fit, population.weights)
samples, sampling = timed(wsflow.sample, model, 100, random_state=0)

# %%
# Averages
# --------
# Model averages of 1, 2, 5, ... networks, drawn several times: accuracy, negative log-likelihood, Brier score and
# calibration error on the test data, and how well the entropy of the average tells 8 and 9 from the other digits. With
# the same number of networks, predictions of both sources take the same time. An average is less sure than the networks
# in it, so that the calibration error falls where these are too sure, and rises where they are not.

from wsflow.plotting import PredictiveDisplay

curves = {
    "flow": wsflow.predictive_curve(samples, task, ood=foreign),
    "deep ensemble": wsflow.predictive_curve(ensemble.weights, task, ood=foreign),
}
fig, axes = plt.subplots(2, 3, figsize=(11, 6.4), layout="constrained")
PredictiveDisplay(curves).plot(axes=axes.flat[:5])
axes.flat[5].set_visible(False)
plt.show()

# %%
# The same in numbers, for one network and for a hundred.

for name, curve in curves.items():
    for index in (0, -1):
        numbers = "   ".join(f"{key} {values[index]:.3f}" for key, values in curve.mean.items())
        print(f"{name:14}{curve.sizes[index]:4}   {numbers}")

# %%
# What it costs
# -------------
# A flow needs a population first, and a population is a deep ensemble already. So this is the comparison at equal cost,
# made of the times of the calls above: how many networks could have been trained instead. Where that is far more than
# are ever averaged, as with networks as small as these, train them. A flow is for networks that are expensive to train,
# for populations whose training data are not available, and for what an ensemble does not have: densities, guidance,
# other widths.

one = training / len(population)
whole = training + fitting + sampling
print(f"to train a network   {1000 * one:7.1f} ms")
print(f"to draw a network    {1000 * sampling / len(samples):7.1f} ms")
print(f"to fit the flow      {fitting:7.1f} s, once")
print(f"trained networks for the cost of the population, the flow and its 100 samples: {whole / one:.0f}")

# %%
# Weights
# -------
# An average may be weighted by the likelihood of each network on data that none of them has seen, here the validation
# data. At temperature 1 the best network has nearly all the weight; the effective size is the number of equally
# weighted networks with the same variance. ``temperature_for`` finds the temperature at which it is a given number.

from wsflow.evaluation.importance_sampling import log_likelihoods, temperature_for

likelihoods = log_likelihoods(samples, task.validation)
for temperature in (1.0, temperature_for(likelihoods, 30), float("inf")):
    found = wsflow.posterior_predictive(samples, task.test, log_weights=likelihoods, temperature=temperature)
    numbers = "   ".join(f"{key} {value:.3f}" for key, value in found.numbers.items())
    print(f"temperature {temperature:5.1f}, worth {found.effective_size:5.1f} networks   {numbers}")

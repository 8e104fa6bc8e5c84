"""
Predicting accuracy from weights
================================

How good is a network? Its weights tell, without data: a metanetwork that has seen others ranks it. Whether it looks at
the function or at accidents of training shows when the networks are moved by symmetries of their architecture.
"""

# %%
# Networks of many qualities
# --------------------------
# Each run has a learning rate and a number of steps of its own.

import matplotlib.pyplot as plt

import wsflow
from wsflow import MetaRegressor
from wsflow.evaluation import hyperparameter_baseline, kendall_tau, orbit_score, predict, tau_ceiling

task = wsflow.load_task("digits")
population = wsflow.train_population(
    task, hidden=(16,), n_runs=400, steps=(10, 200), learning_rate=(1e-3, 3e-2), random_state=0
)
X, accuracy = population.weights, predict(population.weights, task.held_out).scores
train, test = slice(300), slice(300, None)

# %%
# Two predictors
# --------------
# Both see statistics of the weights of each layer. One brings networks to a canonical form first.

models = {
    name: MetaRegressor("statistics", canonicalize=form, max_iter=300, random_state=0).fit(X[train], accuracy[train])
    for name, form in (("raw", None), ("canonical", "auto"))
}
for name, model in models.items():
    found = orbit_score(model, X[test], accuracy[test])
    tau = kendall_tau(accuracy[test], model.predict(X[test]))
    print(f"{name}: R2 {found.clean:.3f}, moved {found.moved:.3f}; tau {tau:.3f} of {tau_ceiling(accuracy[test]):.3f}")
alone = hyperparameter_baseline(population.hyperparameters, accuracy)
print(f"hyperparameters alone: R2 {alone.score:.3f}, tau {alone.tau:.3f}")

# %%
# Predictions, with intervals that cover nine of ten networks of new runs.

model = models["canonical"]
predicted, (low, high) = model.predict(X[test]), model.predict_interval(X[test], coverage=0.9).T
fig, ax = plt.subplots()
ax.errorbar(accuracy[test], predicted, (predicted - low, high - predicted), fmt=".", alpha=0.5)
ax.axline((0.5, 0.5), slope=1, color="gray")
ax.set(xlabel="accuracy on test data", ylabel="predicted from weights")
plt.show()

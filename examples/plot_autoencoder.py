"""
One network for a whole orbit
=============================

Permuting hidden neurons and changing signs gives other weights and the same function. An autoencoder that compares
functions sees none of it: all of these networks have one latent, and are decoded to one network.
"""

# %%
# Images as networks
# ------------------
# Each network maps the coordinates of a pixel to its value in one handwritten digit.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import wsflow
from wsflow import MetaAutoencoder, PermutationAligner, WeightArray
from wsflow.populations.representations import train_representations
from wsflow.running import forward
from wsflow.symmetry.actions import Action

digits = load_digits()
images = digits.images / 16
population = train_representations(images[:1200], digits.target[:1200], architecture="siren:16,16", steps=100)
X = population.weights.astype(np.float64)


def shown(weights):
    """The images that networks hold."""
    inputs = torch.from_numpy(population.task.X).double()
    return forward(torch.from_numpy(np.array(weights)), X.architecture, inputs).reshape(-1, 8, 8).numpy()


# %%
# An autoencoder of functions
# ---------------------------
# Its encoder runs networks on learned inputs, its decoder writes weights, and its loss is the squared error between the
# images of both. It has not seen the last 100 networks.

autoencoder = MetaAutoencoder(16, task=population.task, max_iter=800, random_state=0).fit(X[:1100])
new = X[1100:]
error = np.mean((shown(autoencoder.reconstruct(new)) - shown(new)) ** 2)
print(f"squared error {error:.4f}; of the mean image {np.mean((shown(new) - shown(X[:1100]).mean(0)) ** 2):.4f}")

# %%
# Orbits
# ------
# Thirty networks of the orbit of each of three: in their weights they are far apart, their latents are three points,
# and so are the weights of their reconstructions.

labels = np.repeat(np.arange(3), 30)
orbit = new[:3][labels]
orbit = Action.random(X.architecture, len(orbit), torch.Generator().manual_seed(0), 0.0)(orbit)
panels = {
    "weights": orbit,
    "latents": autoencoder.transform(orbit),
    "weights of reconstructions": autoencoder.reconstruct(orbit),
}
fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
for ax, (title, values) in zip(axes, panels.items(), strict=True):
    plane = PCA(2).fit_transform(np.asarray(values))
    ax.scatter(*plane.T, c=labels, cmap="viridis", alpha=0.6)
    spread = max(np.ptp(np.asarray(values)[labels == i], axis=0).max() for i in range(3))
    ax.set(title=f"{title}\nspread within an orbit {spread:.0e}", xticks=[], yticks=[])
plt.show()

# %%
# Merging two runs of an image
# ----------------------------
# Two networks that learned the same image from different first weights: the mean of their weights is another one,
# and a blurred one where they are aligned. The mean of their latents is decoded to the image; numbers are squared
# errors.

again = train_representations(images[1100:1105], architecture="siren:16,16", steps=100, random_state=1).weights
pairs = [WeightArray.concatenate([new[i : i + 1], again[i : i + 1].astype(np.float64)]) for i in range(5)]
aligner = PermutationAligner(method="weight", reference="first", by="network")
rows = {
    "first run": [pair[:1] for pair in pairs],
    "second run": [pair[1:] for pair in pairs],
    "mean": [wsflow.merge(pair) for pair in pairs],
    "aligned mean": [wsflow.merge(aligner.fit_transform(pair)) for pair in pairs],
    "latent mean": [wsflow.merge(pair, method="latent", autoencoder=autoencoder) for pair in pairs],
}
fig, axes = plt.subplots(len(rows), 5, figsize=(6, 6.4), layout="constrained")
for line, (title, networks) in zip(axes, rows.items(), strict=True):
    for ax, network, image in zip(line, networks, images[1100:1105], strict=True):
        ax.imshow(shown(network)[0], cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.set_xlabel(f"{np.mean((shown(network)[0] - image) ** 2):.3f}")
    line[0].set_ylabel(title)
plt.show()

"""Implicit neural representations: many networks at once, each of which holds an image of its own.

References
----------
Sitzmann et al. 2020, arXiv:2006.09661 (SIREN); Navon et al. 2023, "Equivariant architectures for learning in deep
weight spaces", arXiv:2301.12780 (representations of MNIST and Fashion-MNIST as data).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.populations.images import image_task
from wsflow.populations.population import Population
from wsflow.populations.training import train_population


def train_representations(
    images: Any,
    labels: Any = None,
    *,
    architecture: Any = "siren:32,32",
    initialisation: str = "siren_small",
    learning_rate: Any = 2e-3,
    steps: Any = 200,
    batch_size: int | None = None,
    **options: Any,
) -> Population:
    """Train a network of sines for each image: run i maps the coordinates of a pixel to its value in image i.

    The defaults are those of public collections: two hidden layers of 32 neurons, sin(30 z), first weights that are
    nearly flat and an output that begins at 1/2.

    Parameters
    ----------
    images : array-like of shape (n, height, width) or (n, height, width, channels)
        Reals between 0 and 1, or unsigned integers, which are divided by their maximum.
    labels : array-like of shape (n,), optional
        The class of each image, which `Population.labels` has for each network.
    architecture, initialisation, learning_rate, steps
        As in `wsflow.train_population`.
    batch_size : int, optional
        Pixels in each step (default: all).
    **options
        Further parameters of `wsflow.train_population`, such as `random_state`, `n_jobs` or `checkpoint`.

    Returns
    -------
    Population
        Of n runs; its task has the coordinates of the pixels, and the mean of the images.

    Raises
    ------
    InvalidInputError
        If there are no such images, or not one label for each.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.populations.representations import train_representations
    >>> images = np.random.default_rng(0).random((3, 8, 8))
    >>> population = train_representations(images, ["a", "b", "a"], steps=5)
    >>> population.weights.shape, population.labels
    ((3, 1185), array(['a', 'b', 'a'], dtype='<U1'))
    """
    values = np.asarray(images)
    if values.ndim not in (3, 4) or not len(values):
        raise InvalidInputError(
            "The 'images' of train_representations have shape (n, height, width) or (n, height, width, channels), got "
            f"{values.shape}. Rows of pixels, as those of load_task('mnist').X, are reshaped: X.reshape(-1, 28, 28)."
        )
    names = None if labels is None else np.asarray(labels)
    if names is not None and names.shape != (len(values),):
        raise InvalidInputError(
            f"The 'labels' of {len(values)} images are {len(values)} of them, got shape {names.shape}."
        )
    known = [image_task(image) for image in values]
    targets = np.stack([task.y for task in known])
    population = train_population(
        replace(known[0], y=targets.mean(0)),
        n_runs=len(values),
        targets=targets,
        architecture=architecture,
        initialisation=initialisation,
        learning_rate=learning_rate,
        steps=steps,
        batch_size=batch_size or targets.shape[1],
        **options,
    )
    if names is None:
        return population
    runs = np.unique(population.weights.runs)
    own = {"labels": {"run": runs.tolist(), "label": names.tolist()}}
    return replace(population, provenance={**population.provenance, **own})

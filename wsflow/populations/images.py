"""Images as tasks: a network maps the place of a pixel to its value (an implicit neural representation).

References
----------
Sitzmann, Martel, Bergman, Lindell and Wetzstein 2020, "Implicit neural representations with periodic activation
functions", arXiv:2006.09661.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.task import Task


def image_task(image: Any, *, source: Mapping[str, Any] | None = None) -> Task:
    """The regression of an image's pixels on their places.

    Inputs are the row and the column of each pixel, each between -1 and 1 from edge to edge; targets are its values.

    Parameters
    ----------
    image : array-like of shape (height, width) or (height, width, channels)
        Reals as they are; unsigned integers are divided by the largest of their kind.
    source : mapping, optional
        What the task says about its origin.

    Returns
    -------
    Task
        With the loss ``"mse"``, in float32; row after row.

    Raises
    ------
    InvalidInputError
        If the image has other axes, is smaller than 2 x 2, or its values are neither reals nor unsigned integers.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.populations.images import image_task
    >>> task = image_task(np.array([[0, 51], [102, 255]], dtype=np.uint8))
    >>> task.X.tolist()
    [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]
    >>> (255 * task.y.ravel()).round().tolist()
    [0.0, 51.0, 102.0, 255.0]
    """
    values = np.asarray(image)
    if values.ndim not in (2, 3) or min(values.shape[:2]) < 2 or values.dtype.kind not in "fu" or not values.size:
        raise InvalidInputError(
            f"An image has shape (height, width) or (height, width, channels), at least 2 x 2 pixels, and reals or "
            f"unsigned integers; got shape {values.shape} of {values.dtype}."
        )
    height, width = values.shape[:2]
    scale = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
    axes = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    X = np.stack(axes, axis=-1).reshape(-1, 2).astype(np.float32)
    y = (values.reshape(height * width, -1) / scale).astype(np.float32)
    return Task(X, y, "mse", source=dict(source or {}))


@dataclass(frozen=True)
class Photograph:
    """A row of the table of tasks: one of scikit-learn's two photographs, made smaller.

    Parameters
    ----------
    file : str
        As ``sklearn.datasets.load_sample_image`` knows it.
    step : int
        How many pixels, in both directions, are averaged to one.
    """

    file: str
    step: int = 8

    def task(self, name: str, seed: int) -> Task:
        """The image task; nothing of it is random.

        Parameters
        ----------
        name : str
        seed : int

        Returns
        -------
        Task
        """
        from sklearn.datasets import load_sample_image

        pixels = np.asarray(load_sample_image(self.file), dtype=np.float64) / 255
        height, width = (size // self.step for size in pixels.shape[:2])
        blocks = pixels[: height * self.step, : width * self.step].reshape(height, self.step, width, self.step, -1)
        return image_task(blocks.mean(axis=(1, 3)), source={"name": name, "seed": seed})


@dataclass(frozen=True)
class Digit:
    """A row of the table of tasks: one of scikit-learn's handwritten digits, 8 x 8 pixels, by its number."""

    numbered = True

    def task(self, name: str, seed: int) -> Task:
        """The image task; nothing of it is random.

        Parameters
        ----------
        name : str
            Such as ``"digit:17"``; number 0 where none is said.
        seed : int

        Returns
        -------
        Task

        Raises
        ------
        InvalidInputError
            If there is no such number.
        """
        from sklearn.datasets import load_digits

        images = load_digits().images
        number = name.partition(":")[2] or "0"
        if not number.isdecimal() or int(number) >= len(images):
            raise InvalidInputError(f"The task {name!r} is none: digits have the numbers 0 to {len(images) - 1}.")
        return image_task(images[int(number)] / 16, source={"name": name, "seed": seed})

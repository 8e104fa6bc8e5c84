"""Images as tasks: a network maps the coordinates of a pixel to its value (an implicit neural representation).

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
    """Make the regression of an image's values on the pixels' coordinates.

    Inputs are the row and the column of each pixel, each from -1 at one edge to 1 at the other; targets are the values
    of an image (height, width) or (height, width, channels): reals as they are, unsigned integers over their maximum.
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
    """A row of the table of tasks: one of scikit-learn's two photographs, with blocks of pixels averaged."""

    file: str
    step: int = 8  # the side of a block

    def task(self, name: str, seed: int) -> Task:
        """Load the image task, which does not depend on the seed."""
        from sklearn.datasets import load_sample_image

        pixels = np.asarray(load_sample_image(self.file), dtype=np.float64) / 255
        height, width = (size // self.step for size in pixels.shape[:2])
        blocks = pixels[: height * self.step, : width * self.step].reshape(height, self.step, width, self.step, -1)
        return image_task(blocks.mean(axis=(1, 3)), source={"name": name, "seed": seed})


@dataclass(frozen=True)
class Digit:
    """A row of the table of tasks: one of scikit-learn's handwritten digits, 8 x 8 pixels, by its number."""

    numbered = True
    # of the name without a number
    description = "the image of one handwritten digit, 'digit:0'; the data set of all of them is 'digits'."

    def task(self, name: str, seed: int) -> Task:
        """Load the image task of a name such as ``"digit:17"``, which does not depend on the seed."""
        from sklearn.datasets import load_digits

        images = load_digits().images
        number = name.partition(":")[2] or "0"
        if not number.isdecimal() or int(number) >= len(images):
            raise InvalidInputError(f"The task {name!r} is none: digits have the numbers 0 to {len(images) - 1}.")
        return image_task(images[int(number)] / 16, source={"name": name, "seed": seed})

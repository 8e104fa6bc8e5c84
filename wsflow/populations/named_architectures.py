"""The table of named architectures, such as ``"cnn:16,16,16"``: a name, a colon, and the sizes of its layers.

Networks take the inputs of a task as they are. Where these are rows of pixels, as those of MNIST, the first layer of
networks of images is an ``nn.Unflatten``. This file's import is light, as it feeds the CLI's choices.

References
----------
Unterthiner, Keysers, Gelly, Bousquet and Tolstikhin 2020, "Predicting neural network accuracy from weights",
arXiv:2002.11448 (small CNNs); He, Zhang, Ren and Sun 2016, arXiv:1512.03385 (residual networks); Sitzmann et al. 2020,
arXiv:2006.09661 (SIREN); Dosovitskiy et al. 2021, arXiv:2010.11929 (vision transformers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from wsflow.exceptions import InvalidInputError

if TYPE_CHECKING:
    from wsflow.task import Task


@dataclass(frozen=True)
class NamedArchitecture:
    """A row of the table; the function of its name in `wsflow.populations.builders` builds it."""

    description: str
    example: str  # its sizes
    n_sizes: int | None = None  # how many there are, where it is a fixed number
    takes_images: bool = True
    initialisation: str = "torch"
    activation: str = "relu"


NAMED_ARCHITECTURES: dict[str, NamedArchitecture] = {
    "cnn": NamedArchitecture("3 x 3 convolutions of stride 2 with these channels, global pooling", "16,16,16"),
    "mlp": NamedArchitecture("hidden layers of these widths", "16,16", takes_images=False),
    "resnet": NamedArchitecture("a residual block with batch norms for each number of channels", "8,16,32"),
    "siren": NamedArchitecture(
        "hidden layers of sin(30 z), for an image as a function of its coordinates", "32,32",
        takes_images=False, initialisation="siren", activation="sine",
    ),
    "vit": NamedArchitecture("a transformer on 16 patches: width, depth, heads", "32,2,4", 3, activation="gelu"),
}  # fmt: skip
EXAMPLES = ", ".join(f"{name}:{row.example}" for name, row in NAMED_ARCHITECTURES.items())


def parse_architecture(text: str) -> tuple[str, tuple[int, ...]]:
    """Return the name and the sizes of a text such as ``"cnn:16,16,16"``.

    Examples
    --------
    >>> from wsflow.populations.named_architectures import parse_architecture
    >>> parse_architecture("cnn:16,16,16")
    ('cnn', (16, 16, 16))
    """
    name, _, rest = text.partition(":")
    if name not in NAMED_ARCHITECTURES:
        raise ValueError(f"There is no named architecture {text!r}. Choose one such as {EXAMPLES}.")
    row = NAMED_ARCHITECTURES[name]
    parts = [part.strip() for part in rest.split(",")]
    sizes = tuple(int(part) for part in parts if part.isdecimal())
    if len(sizes) != len(parts) or 0 in sizes or len(sizes) != (row.n_sizes or len(sizes)):
        many = f"{row.n_sizes} whole numbers" if row.n_sizes else "whole numbers"
        raise ValueError(
            f"The sizes of {name!r} are {many} from 1 on with commas between, as {name}:{row.example}; got {text!r}."
        )
    return name, sizes


def build_architecture(text: str, task: Task, activation: str | None = None, image: Sequence[int] | None = None) -> Any:
    """Return the architecture of layers, or the module, that a text such as ``"cnn:16,16,16"`` names for a task.

    `image` is the shape (channels, height, width) of inputs that are rows of pixels, where the task does not say it.
    """
    from wsflow.populations import builders

    name, sizes = parse_architecture(text)
    row = NAMED_ARCHITECTURES[name]
    if name == "siren" and activation not in (None, "sine"):
        raise ValueError(f"A 'siren' has sines, got the activation {activation!r}. Choose the architecture 'mlp'.")
    images = {"image": image_of(task, image, text)} if row.takes_images else {}
    return getattr(builders, name)(sizes, task, activation or row.activation, **images)


def image_of(task: Task, image: Sequence[int] | None, text: str) -> tuple[int, ...]:
    """Return the shape (channels, height, width) of the images that a task's inputs are."""
    from wsflow.populations.datasets import image_shape

    own = task.X.shape[1:] if task.X.ndim == 4 else image_shape(task)
    shape = own if image is None else tuple(image)
    if shape is None:
        raise InvalidInputError(
            f"The architecture {text!r} is for images, and the inputs of the task have shape {task.X.shape[1:]}. Say "
            "with 'image' which images its rows are, such as (1, 28, 28), or give the task inputs of shape (examples, "
            "channels, height, width)."
        )
    if len(shape) != 3 or prod(shape) != task.n_inputs or (task.X.ndim == 4 and shape != own):
        raise ValueError(
            f"The 'image' of train_population is (channels, height, width), for {task.n_inputs} inputs of the task; "
            f"got {shape}."
        )
    return shape

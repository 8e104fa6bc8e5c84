"""Populations of networks without symmetries: the constants that all their networks have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wsflow.options import Options, one_of, whole

if TYPE_CHECKING:
    from torch import Tensor

    from wsflow.architecture import Architecture
    from wsflow.populations.architectures import Networks
    from wsflow.task import Task

KINDS = ("weights", "activations")
# what a weight is called once torch parametrizes it
ORIGINAL = (".parametrizations.", ".original")


@dataclass
class Asymmetry(Options):
    """Say which constants the networks of a population have in common, as `wsflow.layers.asymmetrize` puts them in.

    Parameters
    ----------
    kind : {"weights", "activations"}
        Constants in the weights, or gates by fixed matrices in the place of elementwise activations.
    n_fixed : int, or mapping of str to int, optional
        Constants of each output, of all layers or by the name of the layer (default: the share of the paper).
    kappa : float, optional
        Their standard deviation; 0 leaves the mask alone (default: the variance of the paper's, whatever the width).
    seed : int
        Networks that are compared have one seed.

    References
    ----------
    Lim et al. 2024, arXiv:2405.20231.

    Examples
    --------
    >>> from wsflow.populations.asymmetry import Asymmetry, asymmetry_of
    >>> asymmetry_of("mask") == Asymmetry(kappa=0.0)
    True
    """

    kind: str = "weights"
    n_fixed: int | Mapping[str, int] | None = None
    kappa: float | None = None
    seed: int = 0

    CONSTRAINTS: ClassVar = {"kind": one_of(*KINDS), "seed": whole(0)}


ASYMMETRIES: dict[str, Asymmetry] = {
    "activations": Asymmetry("activations"),
    "mask": Asymmetry(kappa=0.0),
    "weights": Asymmetry(),
}


def asymmetry_of(given: str | Asymmetry | None) -> Asymmetry | None:
    """Return the asymmetry that a string stands for, or None."""
    if isinstance(given, str) and given in ASYMMETRIES:
        return ASYMMETRIES[given]
    if given is not None and not isinstance(given, Asymmetry):
        raise ValueError(
            f"The 'asymmetry' of train_population is one of {', '.join(ASYMMETRIES)}, or an object Asymmetry, got "
            f"{given!r}."
        )
    if given is not None:
        given.check()
    return given


@dataclass(frozen=True)
class Start:
    """How networks begin that are told apart by constants: as networks of the same layers without them.

    `plain` is the architecture of those, and `order` has their column for each column of the weights; an anchor has its
    `values` in the columns `anchored`.
    """

    plain: Architecture
    order: np.ndarray
    anchored: np.ndarray
    values: np.ndarray

    def of(self, weights: Tensor) -> Tensor:
        """Return first weights (n, d) from those of networks without constants."""
        weights = weights[:, self.order]
        weights[:, self.anchored] = weights.new_tensor(self.values)
        return weights


def with_constants(
    networks: Networks, task: Task, asymmetry: Asymmetry | None, anchor: bool
) -> tuple[Networks, Start | None]:
    """Return networks with common constants, or with an anchor, and how they begin; or as they are."""
    from wsflow.architecture import Architecture
    from wsflow.exceptions import InvalidInputError
    from wsflow.layers import asymmetrize
    from wsflow.populations.architectures import as_read, first_inputs
    from wsflow.weights import WeightArray

    if asymmetry is None:
        if anchor:
            raise ValueError("An 'anchor' goes with 'asymmetry', which says what the anchor is.")
        return networks, None
    if anchor and asymmetry.kind != "weights":
        raise ValueError("An 'anchor' has its constants in weights: choose the asymmetry 'weights'.")
    plain, module = networks.architecture, networks.module
    if module is None:
        (module,) = WeightArray(np.zeros((1, plain.n_weights), np.float32), plain).to_modules()
    inputs = first_inputs(as_read(task, plain))
    settings = {name: value for name, value in asymmetry.get_params().items() if name != "kind"}
    table = Architecture.from_module(asymmetrize(module, inputs, asymmetry.kind, **settings), inputs)
    if table.program is None:
        raise InvalidInputError("What these networks compute with constants could not be kept as a program.")
    before, after = ORIGINAL
    names = [name.replace(before, ".").removesuffix(after) if before in name else name for name in table.names]
    # the column of the networks without constants for each column of those that have some
    every, without = np.arange(plain.n_weights), replace(plain, module=None)
    order = np.concatenate([every[plain.slices[name]] for name in names])
    if anchor:
        return networks, Start(without, every, order[table.fixed_columns], table.fixed_values)
    start = Start(without, order, table.fixed_columns[:0], table.fixed_values[:0])
    return replace(networks, architecture=replace(table, module=None)), start


def described(asymmetry: Asymmetry | None) -> Any:
    """Return an asymmetry as JSON data."""
    if asymmetry is None:
        return None
    own = asymmetry.n_fixed
    return {**asymmetry.get_params(), "n_fixed": dict(own) if isinstance(own, Mapping) else own}

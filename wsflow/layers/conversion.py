"""asymmetrize: from any module that can be traced to one whose neurons constants tell apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wsflow.activations import ACTIVATIONS
from wsflow.architecture import Architecture
from wsflow.architecture.readable import unwrapped
from wsflow.exceptions import InvalidInputError
from wsflow.layers.asymmetric import AsymmetricConv1d, AsymmetricConv2d, AsymmetricLinear, FixedEntries
from wsflow.layers.constants import Pattern, default_pattern
from wsflow.layers.figlu import FiGLU
from wsflow.running.affine import affine_of
from wsflow.running.execution import restored
from wsflow.running.modules import copied
from wsflow.running.sequential import program_of

KINDS = ("weights", "activations")
LAYERS: dict[type, Any] = {nn.Linear: AsymmetricLinear, nn.Conv1d: AsymmetricConv1d, nn.Conv2d: AsymmetricConv2d}
ACTIVATION_MODULES = tuple(
    getattr(nn, row.module)
    for name, row in ACTIVATIONS.items()
    if row.module and not row.learned and name != "identity"
)


def asymmetrize(
    module: nn.Module,
    example_input: Any,
    kind: str = "weights",
    *,
    n_fixed: int | Mapping[str, int] | None = None,
    kappa: float | None = None,
    seed: int = 0,
    anchor: bool = False,
) -> nn.Module:
    """Return a copy of a module whose neurons constants tell apart; its other weights are those of the module.

    Layers are found by tracing the module: with ``kind="weights"`` all linear layers and convolutions, those of
    attention included, get constants in their weights where their outputs can all fix different ones; with
    ``kind="activations"``, modules of elementwise activations become `FiGLU`. ``wsflow check`` says which symmetries
    are left.

    Parameters
    ----------
    module : torch.nn.Module
    example_input : Tensor, or tuple of what the forward pass takes
    kind : {"weights", "activations"}
    n_fixed : int, or mapping of str to int, optional
        Constants of each output: for all layers, or by the name of the layer, where 0 leaves it as it is (default: an
        eighth of the inputs, half of them in the output layer, or more where rows would repeat).
    kappa : float, optional
        Standard deviation of the constants; 0 leaves the mask alone (default: each layer's constants add the variance
        of the paper's, whatever the width).
    seed : int
        With the layers' names it says what the constants are.
    anchor : bool
        Whether the constants are mere first values, which are trained as all others: the control.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    InvalidInputError
        If the module cannot be traced, or nothing in it can be replaced.
    ValueError
        If a layer cannot have so many constants; it is named.

    References
    ----------
    Lim et al. 2024, arXiv:2405.20231.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from wsflow.layers import asymmetrize
    >>> net = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
    >>> asymmetrize(net, torch.zeros(2, 8))
    Sequential(
      (0): AsymmetricLinear(in_features=8, out_features=4, bias=True, n_fixed=1, kappa=8, seed=0, name='0')
      (1): ReLU()
      (2): AsymmetricLinear(in_features=4, out_features=3, bias=True, n_fixed=2, kappa=2.83, seed=0, name='2')
    )
    """
    if kind not in KINDS:
        raise ValueError(f"Constants are put into {' or '.join(KINDS)}, got {kind!r}.")
    result = copied(unwrapped(module))
    if kind == "activations":
        if anchor or n_fixed is not None:
            raise ValueError("Gated activations have neither an anchor nor fixed entries of rows: leave both out.")
        _replace_activations(result, example_input, kappa, seed)
        return result
    architecture = Architecture.from_module(module, example_input)
    patterns = dict(_patterns(architecture, n_fixed, kappa))
    if not patterns:
        raise InvalidInputError(
            f"This {type(result).__name__} has no linear layer or convolution that can have constants: widen it."
        )
    for name, pattern in patterns.items():
        _fix(result, name, pattern, seed, anchor)
    return result


def _patterns(
    architecture: Architecture, n_fixed: int | Mapping[str, int] | None, kappa: float | None
) -> Iterator[tuple[str, Pattern]]:
    """Yield the names of weights of linear layers and convolutions, with what is fixed of each."""
    names = _weights(architecture)
    shapes = {parameter.name: parameter.shape for parameter in architecture.parameters}
    tied = {parameter.name for parameter in architecture.parameters if parameter.aliases}
    given = _by_weight(n_fixed, names)
    for name in names:
        rows, columns, *kernel = shapes[name]
        own, output = given.get(name), name in architecture.outputs
        if own == 0 or (own is None and name in tied):
            continue
        try:
            yield name, default_pattern(rows, columns, prod(kernel), output=output, n_fixed=own, kappa=kappa)
        except ValueError:
            # too few inputs for different rows: other layers may tell its outputs apart
            if own is not None or (kappa is not None and kappa < 0):
                raise


def _weights(architecture: Architecture) -> tuple[str, ...]:
    """Return the names of the weights of linear layers and convolutions, in the order of the forward pass."""
    program = program_of(architecture)
    found = [affine_of(operation) for operation in (() if program is None else program.operations)]
    return tuple(dict.fromkeys(affine.weight for affine in found if affine is not None and not affine.transposed))


def _by_weight(n_fixed: int | Mapping[str, int] | None, names: Sequence[str]) -> dict[str, int | None]:
    """Return the number of fixed entries that is given for each weight, by its name or that of its layer."""
    if not isinstance(n_fixed, Mapping):
        return dict.fromkeys(names, n_fixed)
    layers = {name: name.rpartition(".")[0] for name in names}
    if unknown := next((key for key in n_fixed if key not in layers.values() and key not in layers), None):
        raise ValueError(
            f"Fixed entries are given for a layer {unknown!r}, which is none of "
            f"{', '.join(map(repr, layers.values()))}."
        )
    return {name: n_fixed.get(name, n_fixed.get(layer)) for name, layer in layers.items()}


def _fix(root: nn.Module, name: str, pattern: Pattern, seed: int, anchor: bool) -> None:
    """Put constants into one weight of a module, by its name."""
    path, _, key = name.rpartition(".")
    layer = root.get_submodule(path)
    weight = getattr(layer, key)
    own = path if key == "weight" else name
    entries = FixedEntries(weight.detach(), pattern, seed, own)
    with torch.no_grad():
        weight.copy_(entries(weight))
    if anchor:
        return
    if type(layer) in LAYERS and key == "weight":
        LAYERS[type(layer)].of(layer, pattern, seed, own)
    else:
        # such as a projection of attention, which is no layer of its own
        parametrize.register_parametrization(layer, key, entries, unsafe=True)


def _replace_activations(root: nn.Module, example_input: Any, kappa: float | None, seed: int) -> None:
    shapes: dict[str, tuple[int, ...]] = {}

    def see(name: str, _: nn.Module, __: Any, output: Tensor) -> None:
        shapes.setdefault(name, tuple(output.shape))

    names = [name for name, layer in root.named_modules() if isinstance(layer, ACTIVATION_MODULES)]
    handles = [root.get_submodule(name).register_forward_hook(partial(see, name)) for name in names]
    inputs = example_input if type(example_input) is tuple else (example_input,)
    with restored(root), torch.no_grad(), torch.random.fork_rng(devices=[]):
        root.eval()(*inputs)
    for handle in handles:
        handle.remove()
    if not shapes:
        raise InvalidInputError(
            f"This {type(root).__name__} has no module of an elementwise activation, such as nn.ReLU, to replace: "
            "use modules instead of functions, or constants in weights."
        )
    for name, shape in shapes.items():
        parent, _, key = name.rpartition(".")
        channels = len(shape) > 3
        layer = FiGLU(shape[1] if channels else shape[-1], kappa, 1 if channels else -1, seed=seed, name=name)
        owner = root.get_submodule(parent)
        setattr(owner, key, layer)
        if hasattr(owner, "activation_relu_or_gelu"):
            # torch's fused encoder layer would apply the activation from before
            owner.activation_relu_or_gelu = 0  # type: ignore[assignment]

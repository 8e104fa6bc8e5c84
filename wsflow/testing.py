"""Strategies for property-based tests: architectures, weights and symmetries, drawn by hypothesis.

wsflow tests itself with them; they are for whoever writes a layer, an activation or an estimator. The example of
`actions` uses all of them.

References
----------
MacIver, Hatfield-Dodds et al. 2019, "Hypothesis: A new approach to property-based testing", JOSS 4(43), 1891.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.activations import ACTIVATIONS
from wsflow.architecture import Architecture
from wsflow.architecture.spaces import groups_of
from wsflow.running import forward, matched
from wsflow.running.example_inputs import example_inputs
from wsflow.running.metrics import deviation
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical import incoming_columns
from wsflow.weights import WeightArray

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("wsflow.testing draws its examples with hypothesis: pip install hypothesis") from error

_SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def architectures(
    draw: Any,
    max_width: int = 6,
    max_depth: int = 3,
    activations: Collection[str] = tuple(ACTIVATIONS),
    min_depth: int = 1,
) -> Architecture:
    """Draw multi-layer perceptrons of any width, depth and activation, with and without biases.

    Parameters
    ----------
    max_width : int
        Of inputs, hidden layers and outputs.
    max_depth, min_depth : int
        Number of hidden layers.
    activations : collection of str
        Keys of `wsflow.activations.ACTIVATIONS`.
    """
    widths = draw(st.lists(st.integers(1, max_width), min_size=min_depth + 2, max_size=max_depth + 2))
    return Architecture.mlp(widths, draw(st.sampled_from(sorted(activations))), bias=draw(st.booleans()))


@st.composite
def weights(
    draw: Any,
    architecture: Architecture,
    n: int = 3,
    dtype: Any = np.float64,
    scale: float = 1.0,
    degenerate: bool = True,
) -> WeightArray:
    """Draw n networks with normal weights, now and then with dead or equal neurons, a zero row, or scales far apart.

    Parameters
    ----------
    scale : float
        Standard deviation.
    degenerate : bool
        Whether dead and equal neurons, zero rows and scales of e^-6 to e^6 may be drawn.
    """
    rng = np.random.default_rng(draw(_SEEDS))
    values = scale * rng.standard_normal((n, architecture.n_weights))
    if degenerate:
        for change in _DEGENERATE:
            if draw(st.booleans()):
                change(values, architecture, rng)
    return WeightArray(values.astype(dtype), architecture)


def _spread_scales(values: np.ndarray, architecture: Architecture, rng: np.random.Generator) -> None:
    """Multiply each parameter of each network by a scale of its own."""
    for columns in architecture.slices.values():
        values[:, columns] *= np.exp(rng.uniform(-6, 6, (len(values), 1)))


def _kill_neuron(values: np.ndarray, architecture: Architecture, rng: np.random.Generator) -> None:
    """Zero the incoming weights of one neuron of each wire, in one network."""
    for wire in architecture.wires:
        columns = incoming_columns(architecture, wire).numpy()
        values[rng.integers(len(values)), columns[rng.integers(len(columns))]] = 0.0


def _repeat_neuron(values: np.ndarray, architecture: Architecture, rng: np.random.Generator) -> None:
    """Copy all weights of the first neuron of each group to the last one, in one network."""
    row = rng.integers(len(values))
    for _, block, columns in architecture.blocks:
        for axis in block.neuron_axes():
            along = np.moveaxis(columns, axis, 0)
            values[row, along[-1]] = values[row, along[0]]


def _zero_row(values: np.ndarray, architecture: Architecture, rng: np.random.Generator) -> None:
    """Zero all weights of one network."""
    values[rng.integers(len(values))] = 0.0


_DEGENERATE = (_spread_scales, _kill_neuron, _repeat_neuron, _zero_row)


@st.composite
def actions(draw: Any, architecture: Architecture, n: int = 3, log_scale: float = 1.0) -> Action:
    """Draw n group elements that permute a few groups, scale (and shift) a few wires, and leave the others.

    A failing example shrinks to the groups and wires that matter.

    Parameters
    ----------
    log_scale : float
        Standard deviation of the logarithms of positive scales.

    Examples
    --------
    >>> from hypothesis import given, settings, strategies as st
    >>> from wsflow.testing import actions, architectures, assert_function_preserved, weights
    >>> @settings(max_examples=5, derandomize=True)
    ... @given(st.data())
    ... def check(data):
    ...     architecture = data.draw(architectures())
    ...     w = data.draw(weights(architecture))
    ...     assert_function_preserved(w, data.draw(actions(architecture))(w))
    >>> check()
    """
    everything = Action.random(architecture, n, torch.Generator().manual_seed(draw(_SEEDS)), log_scale)
    chosen = [group for group in architecture.groups if draw(st.booleans())]
    # a group inside another one moves with it, so the drawn permutation needs the parents' too
    names = {member.name for group in chosen for member in groups_of(group)}
    still = {g.name: torch.arange(g.total).repeat(n, 1) for g in architecture.groups if g.parent is None}
    scaled = [wire.name for wire in architecture.wires if wire.scalings and draw(st.booleans())]
    return Action(
        architecture,
        {**still, **{name: everything.permutations[name] for name in sorted(names)}},
        {name: everything.scales[name] for name in scaled},
        {name: everything.phases[name] for name in scaled if name in everything.phases},
    )


def assert_function_preserved(
    before: WeightArray, after: WeightArray, rtol: float | None = None, inputs: Any = None, module: Any = None
) -> None:
    """Fail unless networks compute what they computed before.

    Parameters
    ----------
    rtol : float, optional
        Largest deviation allowed, relative to the largest output (default: the `rounding_error` of each network before
        and after, which is far below any other change however large the weights of a deep network are).
    inputs : array-like of shape (b, p), optional
        Default: standard normal inputs, 16 of them where the networks are sequential.
    module : torch.nn.Module, optional
        What runs networks that do not run by themselves, in evaluation mode; it needs `inputs`.

    Raises
    ------
    AssertionError
        Naming the network with the largest deviation.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, WeightArray
    >>> from wsflow.testing import assert_function_preserved
    >>> w = WeightArray(np.ones((1, 23)), Architecture.mlp([4, 3, 2]))
    >>> assert_function_preserved(w, w)
    >>> assert_function_preserved(w, w.like(2 * w))
    Traceback (most recent call last):
    AssertionError: Network 0 of 1 is another function: its outputs differ by ... of the largest one, where ...
    """
    if before.architecture != after.architecture or before.shape != after.shape:
        raise AssertionError(f"These are different networks: {before.shape} and {after.shape}, or their architectures.")
    found = function_deviation(before, after, inputs, module)
    allowed = np.full(len(before), rtol) if rtol is not None else _rounding(before, after, inputs, module)
    wrong = ~(found <= allowed)
    if wrong.any():
        worst = int(np.argmax(np.where(wrong, np.nan_to_num(found, nan=np.inf), -1.0)))
        raise AssertionError(
            f"Network {worst} of {len(before)} is another function: its outputs differ by {found[worst]:.2g} of "
            f"the largest one, where {allowed[worst]:.2g} is allowed."
        )


def rounding_error(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    r"""Measure how far two ways to compute the same function may be apart.

    A sum of products is computed as if each factor had a relative error of few units in the last place eps. So

    .. math:: e(x) = \max_k |f(x (1 + 16 \, \mathrm{eps} \, s_k)) - f(x)| + 16 \, \mathrm{eps} \, |f(x)|,

    with eight draws of random signs s_k for the numbers in x, follows the condition of f at x, where no constant fits
    both a linear map and a deep cosine network. Networks moved in their orbits were within a tenth of it.

    Parameters
    ----------
    function : callable
        From rows (m, d) to Tensor of shape (m, ...), for any m.
    rows : Tensor of shape (n, d)

    Returns
    -------
    Tensor of shape (n,)
        e at each row, with the largest absolute value over the outputs in place of |.|.

    References
    ----------
    Higham 2002, "Accuracy and Stability of Numerical Algorithms", chapters 1 and 3.

    Examples
    --------
    >>> import torch
    >>> from wsflow.testing import rounding_error
    >>> x = torch.tensor([[1.0], [1e6]], dtype=torch.float64)
    >>> error = rounding_error(torch.cos, x)
    >>> bool(error[0] < 1e-14), bool(1e-10 < error[1] < 1e-8)
    (True, True)
    """
    unit, draws = 16 * torch.finfo(rows.dtype).eps, rows.repeat(8, 1)
    signs = 2 * torch.randint(2, draws.shape, generator=torch.Generator().manual_seed(0)).to(rows) - 1
    value = function(rows).reshape(len(rows), -1)
    moved = function(draws * (1 + unit * signs)).reshape(8, *value.shape)
    return (moved - value).abs().amax((0, 2)) + unit * value.abs().amax(1)


def function_deviation(before: WeightArray, after: WeightArray, inputs: Any = None, module: Any = None) -> np.ndarray:
    """Return the largest change of an output of each network, over its largest output, shape (n,).

    Inputs and module are those of `assert_function_preserved`; networks that a module runs need both.
    """
    run = _runner(before.architecture, inputs, module)
    return deviation(*(run(torch.from_numpy(np.array(w))) for w in (before, after))).numpy()


def _rounding(before: WeightArray, after: WeightArray, inputs: Any, module: Any) -> np.ndarray:
    """Return the `rounding_error` (n,) before and after, over the largest output; 0 where all outputs are 0."""
    run = _runner(before.architecture, inputs, module)
    rows = [torch.from_numpy(np.array(w)) for w in (before, after)]
    largest = run(rows[0]).flatten(1).abs().amax(1)
    error = sum(rounding_error(run, w) for w in rows)
    return torch.where(largest > 0, error / largest, torch.zeros_like(largest)).numpy()


def _runner(architecture: Architecture, inputs: Any, module: Any) -> Callable[[Tensor], Tensor]:
    """Return a function that runs rows of weights, on given inputs or on standard normal ones."""
    if inputs is None:
        drawn = example_inputs(architecture, 16, torch.Generator().manual_seed(0))
        if drawn is None or len(drawn) != 1:
            raise ValueError("This architecture does not say what its networks take. Pass inputs= and module=.")
        (inputs,) = drawn
    return lambda rows: forward(rows, architecture, matched(torch.as_tensor(inputs), rows), module)

"""Architecture: the one table from which alignment, canonical forms, spheres and metanetworks follow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from wsflow import hooks
from wsflow.architecture import modules, serialization, state_dicts
from wsflow.architecture.checks import check
from wsflow.architecture.fixed_entries import FixedEntries, fixed_entries
from wsflow.architecture.parameters import ActivationSite, Block, Parameter
from wsflow.architecture.program import Program
from wsflow.architecture.readable import check_readable, unwrapped
from wsflow.architecture.sequential import LINEAR, Layer, described, mlp_layers, parameters_of
from wsflow.architecture.spaces import NeuronGroup, Wire, groups_of
from wsflow.exceptions import InvalidInputError
from wsflow.representation import html_table

# parameters in a table of HTML
SHOWN = 30
# the fields that are tuples, and that are saved
FIELDS = ("parameters", "wires", "layers", "outputs", "activation_sites", "constants")


@dataclass(frozen=True, repr=False)
class Architecture:
    """Describe the d weights of a network: named parameters, and which symmetry acts on which axis.

    Parameters
    ----------
    parameters : sequence of Parameter
        In the order in which they lie in a row of weights.
    wires : sequence of Wire
        In the order of the forward pass.
    layers : sequence of Layer
        How to run the network, where it is a sequential one; otherwise a program or a module runs it.
    outputs : sequence of str
        Names of the parameters of the output layer.
    activation_sites : sequence of ActivationSite
        Where activations are read, in a network that a module runs.
    constants : sequence of str
        Keys of the state dict that are no weights, such as buffers of integers.
    program : Program, optional
        What the network computes, where it is not sequential: how it runs without the module that was read.
    module : torch.nn.Module, optional
        The module that was read, of which networks are made again. It is neither compared nor saved with the table.

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> architecture = Architecture.mlp([30, 16, 16, 2], activation="relu")
    >>> architecture.n_weights
    802
    >>> [group.name for group in architecture.groups]
    ['hidden1', 'hidden2']
    >>> Architecture.from_json(architecture.to_json()) == architecture
    True
    """

    parameters: tuple[Parameter, ...]
    wires: tuple[Wire, ...] = ()
    layers: tuple[Layer, ...] = ()
    outputs: tuple[str, ...] = ()
    activation_sites: tuple[ActivationSite, ...] = ()
    constants: tuple[str, ...] = ()
    program: Program | None = None
    module: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in FIELDS:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check(self)

    @classmethod
    def mlp(cls, widths: Sequence[int], activation: str = "relu", *, bias: bool = True) -> Architecture:
        """Describe a multi-layer perceptron, with the parameter names of an ``nn.Sequential``.

        The widths are those of inputs, hidden layers and outputs; activations are keys of
        `wsflow.activations.ACTIVATIONS`.

        Raises
        ------
        ValueError
            If a width is not positive or the activation is unknown.

        Examples
        --------
        >>> Architecture.mlp([4, 3, 1], "tanh").names
        ('0.weight', '0.bias', '2.weight', '2.bias')
        """
        return cls.sequential(mlp_layers(widths, activation, bias))

    @classmethod
    def sequential(cls, layers: Sequence[Layer]) -> Architecture:
        """Describe a network of linear layers and activations, one after the other.

        Raises
        ------
        ValueError
            If the widths of linear layers do not fit each other, or an activation is unknown.
        """
        parameters, wires = parameters_of(layers)
        last = [layer.name for layer in layers if layer.kind == LINEAR][-1]
        outputs = tuple(p.name for p in parameters if p.name.rpartition(".")[0] == last)
        return cls(parameters, wires, tuple(layers), outputs)

    @classmethod
    def from_module(
        cls,
        module: Any,
        example_input: Any = None,
        frozen: Collection[str] = (),
        output: str | int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Architecture:
        """Read a torch module: find its neuron groups and scalings from its operations, and certify them.

        An ``nn.Sequential`` of Linear and activation layers needs no example input, and can be run without the
        module. Everything else is exported with the example input. What it computes is kept as a program, which is
        saved with the architecture and runs its networks; where no program expresses it, the module is needed.
        Wrappers (data parallel, compiled, averaged) are taken off.

        Parameters
        ----------
        example_input : Tensor, or tuple of what the forward pass takes
            Only the shapes matter: more than one example, token and pixel.
        frozen : collection of str
            Names of submodules on which no symmetry shall act; what they compute need not be known.
        output : str or int, optional
            Which part counts of a forward pass that returns several: a field, a key or a position (default: `logits`,
            or the only tensor beside caches, or all tensors).
        progress : callable, optional
            Called with the number of steps done, and that of all.

        Raises
        ------
        ValueError
            If a layer is not understood, the module cannot be exported, or there is no example input; the layer is
            named, and the remedy.

        Examples
        --------
        >>> import torch
        >>> from torch import nn
        >>> Architecture.from_module(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))).n_weights
        23
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
        >>> [(group.name, group.size) for group in Architecture.from_module(net, torch.zeros(2, 1, 8, 8)).groups]
        [('0', 4)]
        """
        module = unwrapped(module)
        if hasattr(module, "named_modules") and not isinstance(module, type):
            check_readable(module)
        if not frozen and output is None and (example_input is None or modules.is_sequential(module)):
            return cls.sequential(modules.layers_of_module(module))
        if example_input is None:
            raise ValueError(
                "Architecture.from_module needs an example_input where layers are frozen, or an output is chosen."
            )
        architecture: Architecture = hooks.read_module(module, example_input, frozen, output, progress)
        return architecture

    def certify(self, module: Any = None, inputs: Any = None, n_trials: int = 3, seed: int = 0) -> float:
        """Return the largest change of an output by random elements of the symmetry group, on random weights.

        The change is relative to the network's largest output, in float64: 1e-10 is a lot.

        Parameters
        ----------
        module : torch.nn.Module, optional
            What runs the networks (default: the architecture's own layers or module).
        inputs : Tensor, or tuple of what the module takes, optional
            Default, for networks that run themselves on real numbers: normal ones.
        n_trials : int
            Number of random networks and group elements; log-scales are standard normal.

        Raises
        ------
        ValueError
            If there are no inputs, or nothing to run the networks.

        Examples
        --------
        >>> Architecture.mlp([4, 3, 2], "tanh").certify() < 1e-12
        True
        """
        return hooks.largest_deviation(self, module, inputs, n_trials, seed)

    def approximations(self, n_trials: int = 3, seed: int = 0) -> tuple[str, ...]:
        """Say which parameters canonical forms and alignment bring only near one point of their orbit, and why.

        There are none for all architectures that are known: members of an orbit, networks that differ by symmetries
        alone, become one point. It is measured on random networks that random elements of the symmetry group move.

        Parameters
        ----------
        n_trials : int
            Number of random networks, each with as many copies.

        Returns
        -------
        tuple of str
            Sentences; none where members of an orbit end less than 1e-10 apart.

        Examples
        --------
        >>> Architecture.mlp([4, 3, 2], "tanh").approximations()
        ()
        """
        return hooks.orbit_approximations(self, n_trials, seed)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], activation: str, *, ordered: bool = True) -> Architecture:
        """Infer a plain MLP or CNN from its state dict and its activation.

        Layers are taken to follow one another; names that suggest blocks are refused. Nothing runs an inferred CNN,
        whose strides are not in its shapes: pass a module to what runs it.

        Parameters
        ----------
        state : mapping of str to tensor
            Of linear layers, convolutions and batch norms.
        ordered : bool
            Whether the order is that of the forward pass; where it is not, the only order that fits is found.

        Raises
        ------
        ValueError
            If the tensors are not those of a plain MLP or CNN, or it is not clear.

        Examples
        --------
        >>> import torch
        >>> state = {"fc1.weight": torch.zeros(3, 4), "fc1.bias": torch.zeros(3), "fc2.weight": torch.zeros(2, 3)}
        >>> Architecture.from_state_dict(state, "relu").n_weights
        21
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        return cls(**state_dicts.fields_of_shapes(shapes, activation, ordered))

    @cached_property
    def groups(self) -> tuple[NeuronGroup, ...]:
        """The neuron groups, parents first, in order of appearance."""
        spaces = [space for p in self.parameters for block in p.blocks for space in block.axes]
        spaces += [wire.space for wire in self.wires]
        return tuple(dict.fromkeys(group for space in spaces for group in groups_of(space)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, in order."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def weight_names(self) -> tuple[str, ...]:
        """The name of each column of a row of weights: its parameter and the index there, such as ``0.weight[2,3]``."""
        named = ((p.name, ",".join(map(str, index))) for p in self.parameters for index in np.ndindex(*p.shape))
        return tuple(f"{name}[{index}]" if index else name for name, index in named)

    @cached_property
    def n_weights(self) -> int:
        """The length d of a row: all parameters, statistics included."""
        return sum(parameter.size for parameter in self.parameters)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """The columns of each parameter in a row of weights."""
        stops = np.cumsum([parameter.size for parameter in self.parameters])
        return {p.name: slice(int(stop) - p.size, int(stop)) for p, stop in zip(self.parameters, stops, strict=True)}

    @cached_property
    def blocks(self) -> tuple[tuple[Parameter, Block, np.ndarray], ...]:
        """Every block with its parameter and the columns of its elements, shaped as the block."""
        return tuple(
            (parameter, block, block.positions(parameter.shape) + self.slices[parameter.name].start)
            for parameter in self.parameters
            for block in parameter.blocks
        )

    @cached_property
    def output_columns(self) -> np.ndarray:
        """The columns of the output layer's parameters."""
        return self._columns(self.outputs)

    @cached_property
    def statistic_columns(self) -> np.ndarray:
        """The columns of statistics, which are transformed along but not modelled."""
        return self._columns([p.name for p in self.parameters if p.role == "statistic"])

    @cached_property
    def fixed_entries(self) -> dict[str, FixedEntries]:
        """The entries of parameters in whose places the program puts constants, and these, by the parameter's name.

        In a row of weights they have no effect; where wsflow makes the row, they are the constants.
        """
        shapes = {parameter.name: parameter.shape for parameter in self.parameters}
        return {} if self.program is None else fixed_entries(self.program, shapes)

    @cached_property
    def fixed_columns(self) -> np.ndarray:
        """The columns of entries in whose places the program puts constants."""
        columns = np.arange(self.n_weights)
        parts = [columns[self.slices[n]][e.fixed.reshape(-1)] for n, e in self.fixed_entries.items()]
        return np.concatenate([*parts, columns[:0]])

    @cached_property
    def fixed_values(self) -> np.ndarray:
        """The constants of the fixed columns."""
        return np.concatenate([*(e.values[e.fixed] for e in self.fixed_entries.values()), np.empty(0)])

    def _columns(self, names: Sequence[str]) -> np.ndarray:
        columns = np.arange(self.n_weights)
        return np.concatenate([columns[self.slices[name]] for name in names] or [columns[:0]])

    @cached_property
    def executable(self) -> Any:
        """The torch module that runs the networks: the one that was read, or its program's; None without either."""
        if self.module is not None or self.program is None:
            return self.module
        return hooks.module_of_program(self)

    @cached_property
    def is_tried(self) -> bool:
        """Whether the program fits the parameters; an InvalidInputError names the operation that does not."""
        return hooks.try_program(self)

    @property
    def is_runnable(self) -> bool:
        """Whether the networks run by themselves: by layers, by a program, or by the module that was read."""
        return any((self.layers, self.program is not None, self.module is not None))

    def wire(self, name: str) -> Wire:
        """Return the wire of that name."""
        return next(wire for wire in self.wires if wire.name == name)

    def locate(self, column: int) -> tuple[str, tuple[int, ...]]:
        """Return the name of the parameter to which a column of the weights belongs, and the index there."""
        for parameter in self.parameters:
            columns = self.slices[parameter.name]
            if columns.start <= column < columns.stop:
                index = np.unravel_index(column - columns.start, parameter.shape)
                return parameter.name, tuple(int(i) for i in index)
        raise IndexError(f"A network of {self.n_weights} weights has no column {column}.")

    def to_json(self) -> str:
        """Return a description from which `from_json` makes the same architecture; keys are sorted."""
        fields = {name: getattr(self, name) for name in (*FIELDS, "program")}
        return serialization.describe(self.groups, **fields)

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Return the architecture that `to_json` described; another text is an InvalidInputError."""
        fields = serialization.parse(text)
        try:
            return cls(**fields)
        except (ValueError, MemoryError) as error:
            raise InvalidInputError(f"This is no description of an architecture: {error}") from error

    def __repr__(self) -> str:
        return f"<Architecture: {self}>"

    def _repr_html_(self) -> str:
        return html_table(f"Architecture: {self}", _rows(self.parameters), ("parameter", "shape", "axes", "role"))

    def __str__(self) -> str:
        if sequence := described(self.layers):
            return f"{sequence} ({self.n_weights} weights)"
        groups = f"{len(self.groups)} neuron group{'' if len(self.groups) == 1 else 's'}"
        return f"{len(self.parameters)} parameters, {self.n_weights} weights, {groups}"


def _rows(parameters: Sequence[Parameter]) -> Iterator[tuple[Any, ...]]:
    """Yield rows of a table: the first parameters, with what their axes range over, and how many there are beyond."""
    for p in parameters[:SHOWN]:
        yield p.name, " x ".join(map(str, p.shape)), "; ".join(_axes(block) for block in p.blocks), p.role
    if len(parameters) > SHOWN:
        yield f"... and {len(parameters) - SHOWN} more", "", "", ""


def _axes(block: Block) -> str:
    groups = (" + ".join(group.name for group in groups_of(space)) for space in block.axes)
    return " x ".join(group or "fixed" for group in groups)

"""W-asymmetric layers: some entries of each row of the weights are constants, other ones in each row."""

from __future__ import annotations

from math import prod
from typing import Any, Self

import torch
from torch import Tensor, nn

from wsflow.layers.constants import Pattern, default_pattern, fixed_entries, normal_constants


class FixedEntries(nn.Module):
    """Put constants in the place of some entries of a weight (rows, columns, ...): a parametrization of torch.

    They follow from the seed and the weight's name.
    """

    fixed: Tensor
    constants: Tensor | None

    def __init__(self, weight: Tensor, pattern: Pattern, seed: int, name: str) -> None:
        super().__init__()
        register_constants(self, weight, pattern, seed, name)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with its constants."""
        return with_constants(weight, self.fixed, self.constants)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return what is kept of a weight that is assigned."""
        return weight


def register_constants(module: nn.Module, weight: Tensor, pattern: Pattern, seed: int, name: str) -> None:
    """Give a module the buffers `fixed`, which is broadcast to the weight, and, where kappa is not 0, `constants`."""
    rows, columns, *kernel = weight.shape
    fixed = fixed_entries(rows, columns, pattern.n_fixed, seed, name).reshape(rows, columns, *[1] * len(kernel))
    module.register_buffer("fixed", fixed.to(weight.device))
    constants = None
    if pattern.kappa:
        constants = normal_constants(tuple(weight.shape), pattern.kappa, seed, name).to(weight) * fixed.to(weight)
    module.register_buffer("constants", constants)


def with_constants(weight: Tensor, fixed: Tensor, constants: Tensor | None) -> Tensor:
    """Return a weight whose fixed entries are the constants, or zero where there are none."""
    return torch.where(fixed, 0.0, weight) if constants is None else torch.where(fixed, constants, weight)


class _Asymmetric(nn.Module):
    """What asymmetric layers have in common: `weight` is the weight with its constants, computed from the parameter.

    All code of torch that reads the weight of a layer so reads the constants as well. The parameter of that name has
    numbers of no effect in the place of the constants; they begin as the constants.
    """

    fixed: Tensor
    constants: Tensor | None
    n_fixed: int
    kappa: float
    seed: int
    name: str

    @property
    def weight(self) -> Tensor:
        """The weight with its constants."""
        weight = self._parameters.get("weight")
        if weight is None:
            raise AttributeError("weight")
        return with_constants(weight, self.fixed, self.constants) if "fixed" in self._buffers else weight

    @classmethod
    def of(cls, layer: nn.Module, pattern: Pattern, seed: int = 0, name: str = "") -> Self:
        """Turn a layer of torch, in place, into an asymmetric one with the same weights elsewhere."""
        layer.__class__ = cls
        layer._fix(pattern, seed, name)  # type: ignore[operator]
        return layer  # type: ignore[return-value]

    def reset_parameters(self) -> None:
        """Draw the first weights as torch does, with the constants in their places."""
        # without the mask, the weight is the parameter itself
        fixed = self._buffers.pop("fixed", None)
        super().reset_parameters()  # type: ignore[misc]
        if fixed is not None:
            self._buffers["fixed"] = fixed
            self._put_constants()

    def _fix(self, pattern: Pattern, seed: int, name: str) -> None:
        register_constants(self, self._parameters["weight"], pattern, seed, name)  # type: ignore[arg-type]
        self.n_fixed, self.kappa, self.seed, self.name = *pattern, seed, name
        self._put_constants()

    @torch.no_grad()
    def _put_constants(self) -> None:
        self._parameters["weight"].copy_(self.weight)  # type: ignore[union-attr]

    def _fix_by_default(self, n_fixed: int | None, kappa: float | None, seed: int, name: str) -> None:
        rows, columns, *kernel = self.weight.shape
        self._fix(default_pattern(rows, columns, prod(kernel), n_fixed=n_fixed, kappa=kappa), seed, name)

    def extra_repr(self) -> str:
        """Return the settings of the layer, and those of its constants."""
        named = f", name={self.name!r}" if self.name else ""
        return f"{super().extra_repr()}, n_fixed={self.n_fixed}, kappa={self.kappa:.3g}, seed={self.seed}{named}"


class AsymmetricLinear(_Asymmetric, nn.Linear):  # type: ignore[override]
    """Map y = W x + b, where `n_fixed` entries of each row of W are constants, and no two rows fix the same entries.

    W = M * A + (1 - M) * C, with a mask M, trained A, and constants C from N(0, kappa^2). With kappa = 0 the mask alone
    is left.

    Parameters
    ----------
    in_features, out_features : int
    n_fixed : int, optional
        Constants in each row (default: an eighth of it, or as many as make all rows different).
    kappa : float, optional
        Standard deviation of the constants (default: n_fixed * kappa^2 is 64, as in the paper's networks of width 512).
    bias : bool
    seed, name : int, str
        The constants follow from both, with the shape: layers of one network have different names.
    device, dtype
        As of `torch.nn.Linear`.

    Raises
    ------
    ValueError
        If rows cannot all be different, a row would be fixed or free as a whole, or kappa is negative.

    References
    ----------
    Lim et al. 2024, arXiv:2405.20231, section 4.1.

    Examples
    --------
    >>> import torch
    >>> from wsflow.layers import AsymmetricLinear
    >>> layer, same = AsymmetricLinear(8, 4, seed=3, name="0"), AsymmetricLinear(8, 4, seed=3, name="0")
    >>> layer
    AsymmetricLinear(in_features=8, out_features=4, bias=True, n_fixed=1, kappa=8, seed=3, name='0')
    >>> torch.equal(layer.constants, same.constants), layer.fixed.sum(1)
    (True, tensor([1, 1, 1, 1]))
    """

    def __init__(
        self, in_features: int, out_features: int, n_fixed: int | None = None, kappa: float | None = None,
        bias: bool = True, *, seed: int = 0, name: str = "", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(in_features, out_features, bias, device, dtype)
        self._fix_by_default(n_fixed, kappa, seed, name)


class AsymmetricConv1d(_Asymmetric, nn.Conv1d):  # type: ignore[override]
    """Convolve sequences, where `n_fixed` whole filters of each output channel are constants.

    Parameters
    ----------
    in_channels, out_channels, kernel_size : int
    n_fixed : int, optional
        Input channels of each output channel whose filters are fixed (default: as of `AsymmetricLinear`).
    kappa : float, optional
        Standard deviation of the constants (default: n_fixed * kernel_size * kappa^2 is 64).
    seed, name : int, str
        The constants follow from both, with the shape.
    **settings
        Those of `torch.nn.Conv1d`: stride, padding, dilation, groups, bias, padding_mode, device, dtype.

    Raises
    ------
    ValueError
        If output channels cannot all fix different filters, all or none of one's would be fixed, or kappa is negative.

    References
    ----------
    Lim et al. 2024, arXiv:2405.20231, section 4.1 and its code.

    Examples
    --------
    >>> import torch
    >>> from wsflow.layers import AsymmetricConv1d
    >>> AsymmetricConv1d(4, 3, 5, n_fixed=2, padding=2)(torch.zeros(7, 4, 10)).shape
    torch.Size([7, 3, 10])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, n_fixed: int | None = None,
        kappa: float | None = None, *, seed: int = 0, name: str = "", **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, **settings)
        self._fix_by_default(n_fixed, kappa, seed, name)


class AsymmetricConv2d(_Asymmetric, nn.Conv2d):  # type: ignore[override]
    """Convolve images, where `n_fixed` whole filters of each output channel are constants.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or (int, int)
    n_fixed : int, optional
        Input channels of each output channel whose filters are fixed (default: as of `AsymmetricLinear`).
    kappa : float, optional
        Standard deviation of the constants (default: n_fixed * kappa^2, times the pixels of a filter, is 64).
    seed, name : int, str
        The constants follow from both, with the shape.
    **settings
        Those of `torch.nn.Conv2d`: stride, padding, dilation, groups, bias, padding_mode, device, dtype.

    Raises
    ------
    ValueError
        If output channels cannot all fix different filters, all or none of one's would be fixed, or kappa is negative.

    References
    ----------
    Lim et al. 2024, arXiv:2405.20231, section 4.1 and its code.

    Examples
    --------
    >>> from wsflow.layers import AsymmetricConv2d
    >>> layer = AsymmetricConv2d(8, 16, 3, padding=1, name="body.0")
    >>> layer.fixed.shape, bool((layer.constants != 0).any(3).any(2).eq(layer.fixed[:, :, 0, 0]).all())
    (torch.Size([16, 8, 1, 1]), True)
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, n_fixed: int | None = None,
        kappa: float | None = None, *, seed: int = 0, name: str = "", **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, **settings)
        self._fix_by_default(n_fixed, kappa, seed, name)

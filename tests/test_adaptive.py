"""Adaptive solvers: tableaux, tolerances, independence of the points of a batch, and errors that are named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import RK45
from scipy.special import erf

from wsflow.exceptions import NumericalError
from wsflow.flow.adaptive import EMBEDDED, integrate_adaptive
from wsflow.manifolds import Euclidean, Product, Sphere

PLANE = Product([(Euclidean(2), torch.tensor([[0, 1]]))])
SPHERE = Product([(Sphere(3), torch.tensor([[0, 1, 2]]))])
AXIS = torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whirl(x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A rotation of the plane that is fast near t = 1/2, and a rate that grows with the first coordinate."""
    speed = 1 + 20 * torch.exp(-50 * (t - 0.5) ** 2)
    return speed.unsqueeze(1) * torch.stack([-x[:, 1], x[:, 0]], 1), x[:, 0] ** 2


def turning(x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A rotation of the sphere, ever faster, and the time as a rate."""
    return (1 + t).unsqueeze(1) * torch.cross(AXIS.expand_as(x), x, -1), t


class TestTableau:
    """The coefficients of Dormand and Prince."""

    method = EMBEDDED["dopri5"]

    def test_is_scipys(self):
        rows = np.array([[*row, *[0.0] * (6 - len(row))] for row in self.method.tableau.stages[:6]])
        np.testing.assert_allclose(rows[:, :5], RK45.A, atol=1e-15)
        np.testing.assert_allclose(self.method.tableau.weights[:6], RK45.B, atol=1e-15)
        np.testing.assert_allclose(np.abs(self.method.errors), np.abs(RK45.E), atol=1e-15)

    def test_the_last_stage_is_the_end_of_the_step(self):
        assert self.method.tableau.stages[-1] == self.method.tableau.weights[:-1]
        assert sum(self.method.tableau.weights) == pytest.approx(1)
        assert sum(self.method.errors) == pytest.approx(0, abs=1e-15)


class TestTolerances:
    """Errors fall with them."""

    @pytest.mark.parametrize("backwards", [False, True])
    def test_on_the_plane(self, backwards):
        x = drawn(6, 2)
        angle = 1 + 20 * np.sqrt(np.pi / 50) * erf(0.5 * 50**0.5)
        angle = -angle if backwards else angle
        turn = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        times = {"start": 1.0, "stop": 0.0} if backwards else {}
        errors = []
        for tolerance in (1e-4, 1e-6, 1e-8, 1e-10):
            end, _ = integrate_adaptive(whirl, x, PLANE, rtol=tolerance, atol=tolerance, **times)
            errors.append(float((end - x @ turn.T).abs().max()))
            assert errors[-1] < 100 * tolerance
        assert errors[-1] < 1e-4 * errors[0]

    def test_on_the_sphere(self):
        x = SPHERE.projection(drawn(6, 3))
        a, b, c = (1.5 * AXIS).tolist()
        turn = torch.linalg.matrix_exp(torch.tensor([[0, -c, b], [c, 0, -a], [-b, a, 0]], dtype=torch.float64))
        end, total = integrate_adaptive(turning, x, SPHERE, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(end, x @ turn.T, rtol=0, atol=1e-7)
        torch.testing.assert_close(total, torch.full((6,), 0.5).double())
        assert SPHERE.belongs(end, 1e-14).all()

    def test_the_integral_is_held_to_them_too(self):
        """Nothing moves, but the rate swings."""

        def still(x, t):
            return 0 * x, torch.sin(40 * t) ** 2

        _, total = integrate_adaptive(still, drawn(3, 2), PLANE, rtol=1e-8, atol=1e-8)
        assert total.tolist() == pytest.approx([0.5 - np.sin(80) / 160] * 3, abs=1e-6)

    def test_there_and_back(self):
        x = drawn(5, 2)
        there, forth = integrate_adaptive(whirl, x, PLANE, rtol=1e-9, atol=1e-9)
        back, less = integrate_adaptive(whirl, there, PLANE, rtol=1e-9, atol=1e-9, start=1.0, stop=0.0)
        torch.testing.assert_close(back, x, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(forth, -less, rtol=1e-6, atol=1e-6)

    def test_it_agrees_with_torchdiffeq(self):
        torchdiffeq = pytest.importorskip("torchdiffeq")
        x = drawn(5, 2)
        times = torch.tensor([0.0, 1.0], dtype=torch.float64)
        expected = torchdiffeq.odeint(lambda t, x: whirl(x, t.expand(5))[0], x, times, rtol=1e-9, atol=1e-9)[1]
        torch.testing.assert_close(
            integrate_adaptive(whirl, x, PLANE, rtol=1e-9, atol=1e-9)[0], expected, rtol=1e-6, atol=1e-6
        )


class TestPoints:
    """Each goes its own way."""

    def test_a_point_does_not_feel_the_others(self):
        x = drawn(8, 2)
        # far points move faster, so that all have steps of their own
        field = lambda x, t: ((1 + 5 * x.norm(dim=1, keepdim=True)) * whirl(x, t)[0], x[:, :1] * x)  # noqa: E731
        together = integrate_adaptive(field, x, PLANE, rtol=1e-3, atol=1e-3)
        for i in (0, 3, 7):
            alone = integrate_adaptive(field, x[i].expand(8, 2), PLANE, rtol=1e-3, atol=1e-3)
            assert all(torch.equal(a[0], b[i]) for a, b in zip(alone, together, strict=True))

    def test_all_rates_are_integrated(self):
        _, total = integrate_adaptive(lambda x, t: (0 * x, torch.stack([t, 3 * t**2, 5 * t**4], 1)), drawn(4, 2), PLANE)
        torch.testing.assert_close(total, torch.tensor([[0.5, 1, 1]]).expand(4, 3).double(), rtol=1e-6, atol=1e-6)

    def test_without_a_rate_the_integral_is_zero(self):
        end, total = integrate_adaptive(lambda x, t: (-x, None), drawn(4, 2), PLANE)
        torch.testing.assert_close(end, drawn(4, 2) * np.exp(-1), rtol=1e-5, atol=1e-5)
        assert total.tolist() == [0] * 4

    def test_no_time_outside_is_asked_for(self):
        times = []

        def field(x, t):
            times.append(t)
            return whirl(x, t)

        for way in ({}, {"start": 1.0, "stop": 0.0}):
            integrate_adaptive(field, drawn(4, 2), PLANE, **way)
        assert float(torch.stack(times).min()) == 0
        assert float(torch.stack(times).max()) == 1

    def test_single_precision_is_kept(self):
        end, total = integrate_adaptive(whirl, drawn(4, 2).float(), PLANE)
        assert end.dtype == total.dtype == torch.float32


class TestErrors:
    """What cannot be followed is named."""

    def test_what_blows_up(self):
        def field(x, t):
            return torch.where(x > 0, 3 * x**2, 0 * x), None

        x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, -1.0], [0.0, 0.0]], dtype=torch.float64)
        with pytest.raises(NumericalError, match=r"at t = 0\.333 \(step \d+\) for 25\.0% of the points.*rtol="):
            integrate_adaptive(field, x, PLANE)

    @pytest.mark.parametrize("after", [-1.0, 0.5])
    def test_what_is_not_finite(self, after):
        def field(x, t):
            return torch.where((t > after).unsqueeze(1), float("nan") * x, x), None

        with pytest.raises(NumericalError, match=r"finite numbers.* at t = (0|0\.5) \(step \d+\) for \d+\.\d%"):
            integrate_adaptive(field, drawn(3, 2), PLANE)

    def test_a_rate_that_is_not_finite(self):
        with pytest.raises(NumericalError, match="finite numbers"):
            integrate_adaptive(lambda x, t: (x, x[:, 0] * float("nan")), drawn(3, 2), PLANE)

    def test_what_does_not_arrive(self):
        with pytest.raises(NumericalError, match=r"has not arrived at t = 0\.\d+ \(step 5\) for 100\.0%"):
            integrate_adaptive(whirl, drawn(3, 2), PLANE, rtol=1e-9, max_steps=5)

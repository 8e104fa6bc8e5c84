"""What all tests share: one thread, quiet hypothesis, and generators of random numbers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# two workers with two threads each on two cores would be slower than one thread each
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

settings.register_profile(
    "wsflow",
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
# --hypothesis-profile=random draws other examples in each run, or those of --hypothesis-seed
settings.register_profile("random", settings.get_profile("wsflow"), derandomize=False, print_blob=True)
settings.load_profile("wsflow")


@pytest.fixture
def hangups() -> Iterator[None]:
    """Let commands that a test starts end at a hangup, also where ``nohup`` has told the tests to ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def rng() -> np.random.Generator:
    """A NumPy generator with a seed."""
    return np.random.default_rng(0)


@pytest.fixture
def generator() -> torch.Generator:
    """A torch generator with a seed."""
    return torch.Generator().manual_seed(0)

"""Checkpoints as people have them become exactly the networks that were written, and what was taken is said."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from checkpoints import LAYOUTS, make_networks
from torch import nn

from wsflow.populations.importers import load_networks


def rows_of(networks: list[nn.Sequential]) -> np.ndarray:
    return np.stack([torch.cat([t.reshape(-1) for t in net.state_dict().values()]).numpy() for net in networks])


@pytest.mark.parametrize("by", ["module", "activation"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_what_is_loaded_is_what_was_written(tmp_path, layout, by):
    for package in layout.needs:
        pytest.importorskip(package)
    networks = make_networks(max(layout.written, layout.networks))
    expected = rows_of(networks[: layout.networks])
    source = layout.write(tmp_path, networks)
    keywords = {"module": make_networks(1)[0]} if by == "module" else {"activation": "tanh"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        population = load_networks(source, **keywords)
    np.testing.assert_array_equal(np.asarray(population.weights), expected)
    assert population.weights.runs.tolist() == list(layout.runs)
    said = "; ".join(str(warning.message) for warning in caught)
    if layout.warns is None:
        assert not said
    else:
        with pytest.warns(UserWarning, match=layout.warns):
            load_networks(source, **keywords)

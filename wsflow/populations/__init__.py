"""Populations: trained networks with the task they are for; data sets, and training of many networks at once."""

from wsflow.populations.datasets import TASKS, load_task
from wsflow.populations.optimizers import OPTIMIZERS
from wsflow.populations.population import Population

__all__ = ["OPTIMIZERS", "TASKS", "Population", "load_task"]

"""Populations: trained networks with the task they are for; data sets, and training of many networks at once."""

from wsflow.populations.datasets import TASKS, load_task
from wsflow.populations.images import image_task
from wsflow.populations.optimizers import OPTIMIZERS
from wsflow.populations.population import Population
from wsflow.populations.schedules import SCHEDULES

__all__ = ["OPTIMIZERS", "SCHEDULES", "TASKS", "Population", "image_task", "load_task"]

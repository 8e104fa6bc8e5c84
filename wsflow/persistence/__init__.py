"""Files: populations and fitted pipelines in safetensors, with everything else as JSON in one metadata key."""

from wsflow.persistence.description import describe
from wsflow.persistence.models import load_model, save_model
from wsflow.persistence.populations import load_population, save_population
from wsflow.persistence.reports import load_report
from wsflow.persistence.sharing import from_pretrained, model_card, push_to_hub
from wsflow.writing import check_target

__all__ = [
    "check_target",
    "describe",
    "from_pretrained",
    "load_model",
    "load_population",
    "load_report",
    "model_card",
    "push_to_hub",
    "save_model",
    "save_population",
]

"""The former name of flows.tracking.logged_model, which models stored in MLflow before 0.2 name as
their loader."""

from flows.tracking.logged_model import _load_pyfunc

__all__ = ["_load_pyfunc"]

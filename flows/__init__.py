"""Commands and servers: the only package that imports Prefect, MLflow, cyclopts and FastAPI.

`text_to_image` chains the stages as a Prefect flow. `cli` is the command line, `serve` the
HTTP service; `tracking` records runs in MLflow, `orchestration` runs Prefect, and `terminal`
prints. `mlflow_model` is a former module name that stored models refer to.
"""

import os

from flows.orchestration.proxies import bypass_proxies_on_loopback

bypass_proxies_on_loopback()
# MLflow reads these when it is imported, so they are set before anything imports it.
os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# The outbox retries; MLflow's own seven retries would block a stage for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
os.environ.setdefault("PGCONNECT_TIMEOUT", "8")

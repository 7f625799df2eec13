"""The room of servers and commands: Prefect, MLflow, the command line and the web, known here
alone."""

import os

from flows.orchestration.proxies import bypass_proxies_on_loopback

bypass_proxies_on_loopback()
# MLflow reads these when it is imported, from wherever that is first.
os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# The outbox tries again; MLflow's own seven times would hold a stage up for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
os.environ.setdefault("PGCONNECT_TIMEOUT", "8")

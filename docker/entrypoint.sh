#!/bin/sh
# Secrets are files: for each variable NAME_FILE, NAME is set to the content of the file, for this process alone.
# Then the command replaces this script.
set -eu

for name in $(env | sed -n 's/^\([A-Z_]*\)_FILE=\/run\/secrets\/.*/\1/p'); do
  eval "file=\$${name}_FILE"
  value=$(cat "$file")
  export "$name=$value"
done

# MLflow takes its database as one URL, set as a variable because arguments show in the list of processes. The URL
# names the driver because SQLAlchemy's default driver depends on its version.
if [ -n "${MLFLOW_DATABASE:-}" ]; then
  export MLFLOW_BACKEND_STORE_URI="postgresql+psycopg2://tld:$POSTGRES_PASSWORD@$MLFLOW_DATABASE"
fi

exec "$@"

#!/bin/sh
# Secrets come as files: for each variable NAME_FILE, NAME becomes what the file holds, seen by this process alone.
# Then the command takes the place of this script.
set -eu

for name in $(env | sed -n 's/^\([A-Z_]*\)_FILE=\/run\/secrets\/.*/\1/p'); do
  eval "file=\$${name}_FILE"
  value=$(cat "$file")
  export "$name=$value"
done

# MLflow takes its database as one URL. As an argument it would show in the list of processes. It names the
# driver, since the one that SQLAlchemy takes by itself depends on its version.
if [ -n "${MLFLOW_DATABASE:-}" ]; then
  export MLFLOW_BACKEND_STORE_URI="postgresql+psycopg2://tld:$POSTGRES_PASSWORD@$MLFLOW_DATABASE"
fi

exec "$@"

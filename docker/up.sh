#!/usr/bin/env bash
# Start all services on this machine, and print their addresses. Existing secrets, data and the digest are kept.
set -euo pipefail
cd "$(dirname "$0")"

secret() { # name, length in bytes, prefix: create a random secret unless it exists
  [ -s "secrets/$1" ] || printf '%s%s' "${3:-}" "$(head -c "$2" /dev/urandom | od -An -tx1 | tr -d ' \n')" >"secrets/$1"
}

mkdir -p secrets && chmod 0700 secrets
secret postgres_password 24
secret prefect_auth_string 24 tld:
secret objects_key_id 10
secret objects_key 24
secret serve_tokens 24
printf '{"identities": [{"name": "tld", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "%s", "secretKey": "%s"}]}]}\n' \
  "$(cat secrets/objects_key_id)" "$(cat secrets/objects_key)" >secrets/objects_identities
# Compose mounts a secret with its owner and mode, and the image's user is another. The folder's mode keeps others out.
chmod 0444 secrets/*

touch .env
if ! grep -q '^BASE=' .env; then
  base=python:3.11-slim-bookworm
  digest=$(docker buildx imagetools inspect "$base" --format '{{.Manifest.Digest}}')
  echo "BASE=$base@$digest" >>.env
fi
export TLD_TARGET=${TLD_TARGET:-cpu}
files=(--file compose.yaml) same=""
if [ "$TLD_TARGET" = cuda ]; then files+=(--file compose.gpu.yaml) same="TLD_TARGET=cuda "; fi

docker build --file Dockerfile --target "$TLD_TARGET" --build-arg "$(grep '^BASE=' .env)" --tag "tld:$TLD_TARGET" ..
docker compose "${files[@]}" run --rm bucket
docker compose "${files[@]}" up --detach --wait
docker compose "${files[@]}" run --rm deploy

cat <<END

  Prefect   http://127.0.0.1:${PREFECT_PORT:-4200}   runs, schedules; start one: Deployments > text-to-image > Run
            its password is in docker/secrets/prefect_auth_string, all of the line
  MLflow    http://127.0.0.1:${MLFLOW_PORT:-5000}   scores, curves, models
  tld       ${same}make serve, once a run has trained a model: http://127.0.0.1:${SERVE_PORT:-8000}
            its token is in docker/secrets/serve_tokens

  docker compose --file docker/compose.yaml logs --follow worker
  make down   stops it all and keeps the data
END

"""Answers that say what is wrong, in the service's own form or in that of OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Response

OPENAI_PATH = "/v1/"
_OPENAI_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


def problem(
    status: int,
    detail: object,
    headers: Mapping[str, str] | None = None,
    *,
    path: str = "",
    **more: str,
) -> Response:
    """An error as the answer of a path: {"detail": …}, but {"error": …} where OpenAI's clients
    ask. `detail` is a sentence, or a list of {loc, msg, type}."""
    if path.startswith(OPENAI_PATH):
        status = 400 if status == 422 else status
        body = _openai_error(status, detail, more)
    else:
        body = {"detail": detail, **more}
    # As ASCII, because text that came from the client may not be valid Unicode.
    return Response(json.dumps(body), status, dict(headers or {}), "application/json")


def _openai_error(status: int, detail: object, more: Mapping[str, str]) -> dict[str, Any]:
    fields = detail if isinstance(detail, list) else []
    # A body that is no JSON has the place of the fault in it as its last part.
    names = [part if isinstance(part := field["loc"][-1], str) else "body" for field in fields]
    sentences = [f"{name}: {field['msg']}" for name, field in zip(names, fields, strict=True)]
    message = "; ".join(sentences) if fields else f"{detail}"
    return {
        "error": {
            "message": " ".join([message, *more.values()]),
            "type": "server_error" if status >= 500 else "invalid_request_error",
            "param": names[0] if names else None,
            "code": _OPENAI_CODES.get(status),
        }
    }

"""Errors are in the form that the clients of a path read."""

from __future__ import annotations

import json

import pytest

from flows.serve.problems import problem


def test_the_service_has_a_form_of_its_own() -> None:
    answer = problem(429, "the queue is full", {"Retry-After": "3"}, path="/pictures")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert json.loads(bytes(answer.body)) == {"detail": "the queue is full"}
    assert json.loads(bytes(problem(500, "internal error", id="12").body))["id"] == "12"
    assert problem(200, "\ud800").body == b'{"detail": "\\ud800"}', "half a pair is no Unicode"


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, "invalid_request_error", "invalid_api_key"),
        (429, "invalid_request_error", "rate_limit_exceeded"),
        (413, "invalid_request_error", None),
        (500, "server_error", None),
    ],
)
def test_clients_of_openais_api_read_theirs(status: int, kind: str, code: str | None) -> None:
    answer = problem(status, "no", path="/v1/images/generations", id="12")
    error = json.loads(bytes(answer.body))["error"]
    assert error == {"message": "no 12", "type": kind, "param": None, "code": code}
    assert answer.status_code == status


def test_fields_become_one_sentence_and_the_first_is_named() -> None:
    fields = [{"loc": ("body", name), "msg": "is wrong", "type": "x"} for name in ("n", "size")]
    answer = problem(422, fields, path="/v1/images/generations")
    error = json.loads(bytes(answer.body))["error"]
    assert answer.status_code == 400
    assert (error["message"], error["param"]) == ("n: is wrong; size: is wrong", "n")


def test_a_body_that_is_no_json_names_no_place_in_it_as_a_field() -> None:
    fault = [{"loc": ("body", 17), "msg": "JSON decode error", "type": "json_invalid"}]
    error = json.loads(bytes(problem(422, fault, path="/v1/images/generations").body))["error"]
    assert (error["message"], error["param"]) == ("body: JSON decode error", "body")

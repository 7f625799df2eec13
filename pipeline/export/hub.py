"""Upload of an exported model, and of a Space that samples with it, to the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.config.distribution import tld_version

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


class HubError(ValueError):
    """The hub cannot be used, or refused something; the message says what to do."""

    exit_code = 2


def name_problem(name: str) -> str | None:
    """Why this is no name of a repository on the hub, or None if it may be one."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if name.count("/") != 1:
        return f"{name!r} is not OWNER/NAME, such as me/stars"
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        return str(error)
    return None


def license_problem(identifier: str) -> str | None:
    """Why this is no identifier of a licence, or None if it may be one."""
    if _LICENSE.fullmatch(identifier):
        return None
    return (
        f"{identifier!r} is no identifier of the hub, such as mit, apache-2.0, cc-by-4.0, "
        "openrail or other"
    )


def check_account(repositories: Mapping[str, str]) -> None:
    """Ask the hub who is logged in. Raises HubError unless that account may write to these
    repositories, by option."""
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        raise HubError("HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it")
    if not get_token():
        raise HubError(
            "you are not logged in to the Hugging Face hub: run `hf auth login`, or set HF_TOKEN, "
            f"with a token that may write ({constants.ENDPOINT}/settings/tokens)"
        )
    try:
        account: dict[str, Any] = HfApi().whoami()
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise HubError(
                "the Hugging Face hub does not accept your token (HF_TOKEN, or that of "
                "`hf auth login`): log in again with `hf auth login`"
            ) from error
        raise HubError(f"{constants.ENDPOINT} reports: {_reason(error)}") from error
    except Exception as error:  # of the libraries below the client, each with its own errors
        raise HubError(f"{constants.ENDPOINT} does not answer: {_reason(error)}") from error
    if problems := list(_rights(account, repositories)):
        raise HubError("\n".join(problems))


def upload(folder: Path, name: str, kind: Literal["model", "space"], *, public: bool) -> str:
    """Upload a folder to a repository, which is created if there is none: for all to see, or
    private. One that exists stays as public as it is, and keeps files that the folder lacks.
    Returns its address and whether it is public. Raises HubError."""
    from huggingface_hub import HfApi

    api = HfApi(library_name="tld", library_version=tld_version())
    try:
        url = api.create_repo(
            name,
            repo_type=kind,
            private=not public,
            exist_ok=True,
            space_sdk="gradio" if kind == "space" else None,
        )
        message = f"Upload by tld {tld_version()}"
        api.upload_folder(repo_id=name, repo_type=kind, folder_path=folder, commit_message=message)
        is_private = api.repo_info(name, repo_type=kind).private
    except Exception as error:  # of the libraries below the client, each with its own errors
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        raise HubError(
            f"uploading the {kind} {name} failed: {_reason(cause)}\n"
            "Run the same command again: files that arrived are not uploaded twice."
        ) from error
    return f"{url} ({'private' if is_private else 'public'})"


def _rights(account: dict[str, Any], repositories: Mapping[str, str]) -> list[str]:
    """What an account may not do."""
    user, token = str(account.get("name")), account.get("auth", {}).get("accessToken", {})
    owners = [user, *(str(each["name"]) for each in account.get("orgs", []))]
    problems = [
        f"{option} {name}: you are {user}, and may write to {' and '.join(owners)} alone"
        for option, name in repositories.items()
        if name.partition("/")[0].lower() not in [owner.lower() for owner in owners]
    ]
    if token.get("role") == "read":
        problems.append("your token may only read: log in with one that may write")
    return problems


def _reason(error: BaseException) -> str:
    """What the hub says, or the first line of the error."""
    if said_by_hub := getattr(error, "server_message", None):
        return str(said_by_hub)
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__)

"""The real client of the Hugging Face hub against a hub on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.export.hub import (
    HubError,
    check_account,
    license_problem,
    name_problem,
    upload,
)
from tests.support.hub import TOKEN, Hub, hub_server


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The one that the client asks, and to which it is logged in."""
    with hub_server() as hub:
        for name, value in {
            "ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def test_names_of_repositories() -> None:
    assert name_problem("me/stars") is None
    for name in ("stars", "a/b/c", "me/", "/stars", "me/my stars", "me/a--b", "me/stars.git"):
        assert name_problem(name), name


def test_identifiers_of_licences() -> None:
    assert license_problem("cc-by-4.0") is None
    for name in ("", "MIT License", "mit\nlicense: x"):
        assert license_problem(name), name


def test_one_may_write_to_ones_own_and_to_organizations(hub: Hub) -> None:
    check_account({"--push": "Me/stars", "--space": "lab/stars"})
    assert hub.asked == ["GET /api/whoami-v2"]


def test_what_is_wrong_with_the_account_is_said_at_once(hub: Hub) -> None:
    hub.account["auth"]["accessToken"]["role"] = "read"
    with pytest.raises(HubError) as refused:
        check_account({"--push": "you/stars", "--space": "they/stars"})
    assert str(refused.value).splitlines() == [
        "--push you/stars: you are me, and may write to me and lab alone",
        "--space they/stars: you are me, and may write to me and lab alone",
        "your token may only read: log in with one that may write",
    ]


@pytest.mark.usefixtures("hub")
def test_who_is_not_logged_in_is_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of-another")
    with pytest.raises(HubError, match="does not accept your token") as refused:
        check_account({"--push": "me/stars"})
    assert "hf_of-another" not in str(refused.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"not logged in .* run `hf auth login`, or set HF_TOKEN"):
        check_account({"--push": "me/stars"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        check_account({"--push": "me/stars"})


@pytest.mark.usefixtures("hub")
def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"http://127\.0\.0\.1:9 does not answer"):
        check_account({"--push": "me/stars"})


# The client says this to itself.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_folder_is_uploaded(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "vae").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "vae" / "weights.safetensors").write_bytes(b"1234")
    assert upload(folder, "me/stars", "model", public=False) == f"{hub.url}/me/stars (private)"
    repository = hub.repositories["me/stars"]
    assert repository.files == {
        "README.md": b"---\nlicense: mit\n---\n",
        "vae/weights.safetensors": b"1234",
    }
    assert len(hub.large) == 1
    repository.commit({"LICENSE": b"of the owner"})
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    shown = upload(folder, "me/stars", "model", public=True)
    assert shown.endswith("(private)"), "one that exists stays as it is"
    assert repository.files["README.md"] == b"---\nlicense: cc-by-4.0\n---\n"
    assert repository.files["LICENSE"] == b"of the owner"
    assert upload(folder, "lab/stars", "model", public=True).endswith("lab/stars (public)")


def test_a_refused_upload_says_why(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("print()")
    hub.refuses_commits = True
    with pytest.raises(HubError, match="uploading the space me/app failed: ") as refused:
        upload(tmp_path, "me/app", "space", public=False)
    assert "Run the same command again" in str(refused.value)
    assert "Storage limit reached" in str(refused.value)

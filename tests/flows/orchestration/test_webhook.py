"""Notices of failed flows, received by real servers on loopback."""

from __future__ import annotations

import email
import email.policy
import http.server
import json
import logging
import socketserver
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Failed

from flows.orchestration.webhook import check_webhook, notify_webhook
from flows.text_to_image import text_to_image
from tests.support.command import CANARY

RUN = FlowRun(flow_id=uuid4(), name="mauve-fox")
WHY = f"https://me:{CANARY}@host/t.csv?key={CANARY}: HTTP 403"
SHOWN = "https://host/t.csv?key=***: HTTP 403"


@pytest.fixture
def hook() -> Iterator[tuple[int, list[tuple[str, dict[str, Any]]]]]:
    """A web server, and the paths and bodies that were posted to it."""
    posted: list[tuple[str, dict[str, Any]]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            posted.append((self.path, json.loads(self.rfile.read(length))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, posted
        server.shutdown()


@pytest.fixture
def mailbox() -> Iterator[tuple[int, list[email.message.EmailMessage]]]:
    """A mail server, and the mails that it got."""
    mails: list[email.message.EmailMessage] = []

    class Receiver(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while (line := self.rfile.readline().strip().upper()) != b"QUIT":
                if line == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    raw = b"".join(iter(self.rfile.readline, b".\r\n"))
                    mail = email.message_from_bytes(raw, policy=email.policy.default)
                    assert isinstance(mail, email.message.EmailMessage)
                    mails.append(mail)
                self.wfile.write(b"250 ok\r\n")
            self.wfile.write(b"221 bye\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], mails
        server.shutdown()


def test_a_url_gets_the_report_as_json_and_no_secret_of_an_address(
    hook: tuple[int, list[tuple[str, dict[str, Any]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, posted = hook
    monkeypatch.setenv("TLD_WEBHOOK", f"http://127.0.0.1:{port}/token-of-the-hook")
    notify_webhook(text_to_image, RUN, Failed(message=WHY))
    ((path, report),) = posted
    assert path == "/token-of-the-hook"
    assert report.pop("url").endswith(f"/runs/flow-run/{RUN.id}")
    assert report == {
        "flow": "text-to-image",
        "run": "mauve-fox",
        "state": "Failed",
        "message": SHOWN,
    }


def test_another_service_gets_a_message(
    hook: tuple[int, list[tuple[str, dict[str, Any]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, posted = hook
    monkeypatch.setenv("TLD_WEBHOOK", f"json://127.0.0.1:{port}/room")
    notify_webhook(text_to_image, RUN, Failed(message=WHY))
    ((path, message),) = posted
    assert path.rstrip("/") == "/room"
    assert message["title"] == "text-to-image mauve-fox: Failed"
    assert message["type"] == "failure"
    shown, link = message["message"].split("\n")
    assert shown == SHOWN
    assert link.endswith(f"/runs/flow-run/{RUN.id}")


def test_a_mail_is_sent(
    mailbox: tuple[int, list[email.message.EmailMessage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, mails = mailbox
    address = f"mailto://127.0.0.1:{port}?from=tld@example.org&to=me@example.org"
    monkeypatch.setenv("TLD_WEBHOOK", address)
    assert check_webhook() == "messages by mailto://"
    notify_webhook(text_to_image, RUN, Failed(message=WHY))
    (mail,) = mails
    assert mail["Subject"] == "text-to-image mauve-fox: Failed"
    assert mail["To"] == "me@example.org"
    text = mail.as_string()
    assert "HTTP 403" in text
    assert CANARY not in text


@pytest.mark.parametrize(
    "address",
    [
        f"hooks.example.org/{CANARY}",
        f"slak://{CANARY}/b/c",
        f"slack://{CANARY}",
        f"json://127.0.0.1:9/{CANARY}",
        f"http://127.0.0.1:9/{CANARY}",
        f"http://[::{CANARY}",
    ],
)
def test_an_address_that_fails_raises_and_logs_nothing_that_would_show_it(
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Prefect logs what a hook raises."""
    monkeypatch.setenv("TLD_WEBHOOK", address)
    with caplog.at_level(logging.DEBUG):
        notify_webhook(text_to_image, RUN, Failed(message="why"))
    assert CANARY not in caplog.text
    assert CANARY not in "".join(capfd.readouterr())
    assert not logging.getLogger("apprise").disabled


def test_an_address_is_checked_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TLD_WEBHOOK", raising=False)
    assert check_webhook() == "none"
    for address, shown in {
        f"https://chat.internal/{CANARY}": "JSON to a URL (https)",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#runs": "messages by slack://",
        "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js": "messages by discord://",
    }.items():
        monkeypatch.setenv("TLD_WEBHOOK", address)
        assert check_webhook() == shown
    for address, begins in {
        f"slak://{CANARY}/b/c": "TLD_WEBHOOK begins with slak://, and is no address",
        f"hooks.example.org/{CANARY}": "TLD_WEBHOOK has no scheme, such as https://",
    }.items():
        monkeypatch.setenv("TLD_WEBHOOK", address)
        with pytest.raises(ValueError, match=begins) as refused:
            check_webhook()
        assert CANARY not in str(refused.value)

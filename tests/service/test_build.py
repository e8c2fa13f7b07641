"""What is built from the settings: something for each queue that is served, and the part that is
there only if a key is."""

import io
from pathlib import Path

import pytest

from postroom.base.observe import Log
from postroom.base.settings import Arc, LogSettings, Settings, SettingsError, Site
from postroom.service.build import build, seal_of
from postroom.spool.metadata import OUT, SERVED
from postroom.store.engine import Store

POST = (
    b"Authentication-Results: mx.example.com; dkim=pass header.d=example.org\r\n"
    b"From: Anne <anne@example.org>\r\n\r\nHello.\r\n"
)
LOG = Log(LogSettings("json"), io.StringIO())


def settings(key: Path | str) -> Settings:
    return Settings(
        site=Site(hostname="mx.example.com"),
        arc=Arc(key=str(key), selector="x1", domain="lists.example.com"),
    )


def test_each_queue_that_counts_as_served_has_a_runner(sqlite_store: Store) -> None:
    parts = build(sqlite_store, Settings(), LOG, lambda: None)
    served = [worker.thread.name.removeprefix("runner-") for worker in parts.workers]
    assert [*served, OUT] == list(SERVED)  # the courier, a task, has `out`


def test_without_a_key_nothing_seals() -> None:
    assert seal_of(settings(""), LOG) is None


def test_a_key_that_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"arc\.key: .* cannot be read: No such file"):
        seal_of(settings(tmp_path / "arc.pem"), LOG)


def test_with_a_key_posts_are_sealed(tmp_path: Path) -> None:
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    key = rsa.generate_private_key(65537, 2048)
    (tmp_path / "arc.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    seal = seal_of(settings(tmp_path / "arc.pem"), LOG)
    assert seal is not None
    assert seal(POST).startswith(b"ARC-Seal: i=1; ")
    assert seal(POST).endswith(POST)

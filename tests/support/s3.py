"""A server of S3's protocol on loopback (moto's), which can be told to fail."""

import threading
from dataclasses import dataclass, field

import pytest


@dataclass
class Bucket:
    """A bucket of the server that the environment names, with credentials."""

    url: str
    faults: list[str] = field(default_factory=list)
    """Statuses with which the next requests are answered, such as `500 Internal Server Error`."""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch):
    """The only bucket of its server."""
    pytest.importorskip("dvc_s3", reason="dvc-s3 is not installed")
    server = pytest.importorskip("moto.server", reason="moto's server is not installed")
    import boto3
    from werkzeug.serving import make_server

    application, found = server.DomainDispatcherApplication(server.create_backend_app), Bucket("s3://our-models")

    def answer(environ, start_response):
        if not found.faults:
            return application(environ, start_response)
        start_response(found.faults.pop(0), [])
        return []

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    # The client repeats a failed request once; patience is the program's.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_RETRY_MODE", "standard")
    running = make_server("127.0.0.1", 0, answer, threaded=True)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    # The nodes of a cluster find the server, as the credentials, in their environment.
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{running.port}")
    boto3.client("s3").create_bucket(Bucket="our-models")
    yield found
    running.shutdown()

"""The address of the proxy, without its secret wherever it could be printed."""

import ssl

from agent.model.endpoint import ProxyEndpoint

ENDPOINT = ProxyEndpoint(
    "127.0.0.1", 8080, "us:er", "s/ecr@t", ssl.create_default_context(), "/bundle.pem", lambda host, port: True
)


def test_the_plain_url_and_the_repr_hold_no_secret():
    assert ENDPOINT.url == "http://127.0.0.1:8080"
    assert "ecr" not in repr(ENDPOINT) and "/bundle.pem" in repr(ENDPOINT)


def test_the_url_with_credentials_is_quoted():
    assert ENDPOINT.url_with_credentials == "http://us%3Aer:s%2Fecr%40t@127.0.0.1:8080"

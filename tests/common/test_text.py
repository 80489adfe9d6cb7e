"""What is shown of a URL: nothing that may be a key."""

from __future__ import annotations

import pytest

from common.text import hosts_only


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://rpc.example did not answer (timed out).", "https://rpc.example did not answer (timed out)."),
        ("https://rpc.example/ fails", "https://rpc.example fails"),
        ("https://rpc.example/s3cr3t did not answer", "https://rpc.example/... did not answer"),
        ("https://user:s3cr3t@rpc.example:8899/", "https://rpc.example:8899"),
        ("see wss://rpc.example?api-key=s3cr3t.", "see wss://rpc.example/..."),
        ("'https://hooks.slack.example/services/T0/B0/s3cr3t' and 'http://b/s3cr3t#s3cr3t'",
         "'https://hooks.slack.example/...' and 'http://b/...'"),
        ("HTTPS://rpc.example/s3cr3t", "HTTPS://rpc.example/..."),
        ("https://rpc.example\\s3cr3t", "https://rpc.example/..."),
        ("a/b and 1 // 2, no URL", "a/b and 1 // 2, no URL"),
    ],
)  # fmt: skip
def test_of_a_url_the_host_is_left(text: str, shown: str) -> None:
    assert hosts_only(text) == shown

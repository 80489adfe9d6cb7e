"""What is shown of a URL, nothing that may be a key, and of a failed program's log, the line that says why."""

from __future__ import annotations

import pytest

from common.text import error_line, hosts_only, without_key


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://rpc.example did not answer (timed out).", "https://rpc.example did not answer (timed out)."),
        ("https://rpc.example/ fails", "https://rpc.example fails"),
        ("https://rpc.example/s3cr3t did not answer", "https://rpc.example/... did not answer"),
        ("https://user:s3cr3t@rpc.example:8899/", "https://rpc.example:8899/..."),
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


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://rpc.example/solana_devnet", "https://rpc.example/solana_devnet"),
        ("http://127.0.0.1:8899/", "http://127.0.0.1:8899/"),
        ("https://rpc.example/v2/s3cr3ts3cr3ts3cr3t", "https://rpc.example/..."),
        ("https://rpc.example/?k=s3cr3t", "https://rpc.example/..."),
        ('https://u"s3cr3t@rpc.example', "https://rpc.example/..."),
        ("https://rpc.example/'s3cr3t s3cr3t s3cr3t", "https://rpc.example/..."),
        ("the network of my long-named laboratory", "the network of my long-named laboratory"),
    ],
)
def test_a_node_is_named_without_its_key(url: str, shown: str) -> None:
    assert without_key(url) == shown


TRACE = 'Traceback (most recent call last):\n  File "train.py", line 9, in <module>\n    mx.eval(loss)\n'


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("step 1\n" + TRACE + "RuntimeError: [eval] no primitive.\nIf you compile:\nhttps://x.example/docs\n\n",
         "RuntimeError: [eval] no primitive."),
        (TRACE + "ValueError: a\n\nDuring handling of the above:\n\n" + TRACE + "mx.Error: b\n", "mx.Error: b"),
        (TRACE + "KeyboardInterrupt\n", "KeyboardInterrupt"),
        (TRACE + "SystemExit: 3\nleft over: 4\n", "SystemExit: 3"),
        ("step 1\rstep 2\nFAIL\n", "FAIL"),
        (TRACE, "    mx.eval(loss)"),
        ("  \n", ""),
    ],
)  # fmt: skip
def test_the_line_that_says_why(log: str, line: str) -> None:
    assert error_line(log) == line

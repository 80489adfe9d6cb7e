"""The served page over real HTTP: whom it answers, what it says again, and that it is the file's page."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from common.errors import Refused
from miner.commands.main import main
from miner.report import page
from miner.report.live import Page, Unserved, serving
from miner.report.material import Material
from tests.miner import sessions
from tests.miner.report.test_report import gathered  # noqa: F401


class Source:
    """A page that counts how often it is made."""

    def __init__(self) -> None:
        self.stamp, self.made, self.refusal = 1, 0, ""

    def build(self) -> str:
        if self.refusal:
            raise Refused(self.refusal, "x")
        self.made += 1
        return f"page {self.stamp}"


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def url(source: Source) -> Iterator[str]:
    with serving(Page(source.build, lambda: source.stamp), 0) as url:
        yield url


def test_it_is_made_anew_where_something_changed_and_sent_where_it_is_new(source: Source, url: str) -> None:
    first = httpx.get(url)
    assert (first.status_code, first.text, first.headers["content-type"]) == (200, "page 1", "text/html; charset=utf-8")
    again = httpx.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, source.made) == (304, b"", 1)
    source.stamp = 2
    newer = httpx.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert (newer.status_code, newer.text, source.made) == (200, "page 2", 2)
    assert httpx.head(url).content == b""


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:80", 200), ("[::1]:9", 200), ("evil.example", 403), ("127.0.0.1.evil.test", 403)],
)
def test_who_names_another_host_gets_nothing(url: str, host: str, status: int) -> None:
    found = httpx.get(url, headers={"Host": host})
    assert (found.status_code, "page" in found.text[:5]) == (status, status == 200)
    assert "access-control-allow-origin" not in found.headers
    assert found.headers["x-frame-options"] == "DENY"


def test_there_is_one_page_and_no_other_method(source: Source, url: str) -> None:
    assert [httpx.get(url + path).status_code for path in ("x", "../../etc/passwd", "?x=1")] == [404, 404, 200]
    assert httpx.post(url).status_code == 501
    source.stamp, source.refusal = 2, "The journal does not parse."
    assert (httpx.get(url).status_code, httpx.get(url).text) == (503, "The journal does not parse.\n")


def test_it_listens_on_this_machine_alone_and_a_taken_port_is_refused(url: str) -> None:
    port = httpx.URL(url).port
    assert port is not None
    with pytest.raises(Unserved, match="cannot be used"), serving(Page(str, int), port):
        pass
    others = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)} - {"127.0.0.1"}
    for address in (str(other) for other in others if not str(other).startswith("127.")):
        with pytest.raises(OSError, match=r"refused|unreachable"):
            socket.create_connection((address, port), timeout=5)


def test_the_served_page_is_the_files_with_one_permission_more(gathered: Material) -> None:  # noqa: F811
    file, served = page.build(gathered), page.build(gathered, live=True)
    cut = {
        name: text.partition("<body>")[2].partition("<script>")[0] for name, text in (("file", file), ("live", served))
    }
    assert cut["file"] == cut["live"]
    assert ("connect-src 'self'" in served, "connect-src 'self'" in file) == (True, False)
    assert "fetch(" not in file


@pytest.mark.parametrize("given", [["--serve", "--output", "x.html"], ["--serve", "--png", "x.png"], ["--port", "1"]])
def test_what_does_not_go_together_is_refused(tmp_path: Path, given: list[str]) -> None:
    sessions.make(tmp_path, trials=1)
    done = CliRunner().invoke(main, ["report", "--home", str(tmp_path), *given])
    assert done.exit_code == 2
    assert "--serve" in done.stderr

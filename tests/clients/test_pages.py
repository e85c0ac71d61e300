"""The blocks of the guide that import packages which the other tests do not require."""

import pages
import pytest

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize(
    "page", [p for p in pages.pages() if pages.clients(p)], ids=lambda page: page.stem
)
def test_blocks_of_pages_run(page, tmp_path, monkeypatch):
    for name in pages.clients(page):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    pages.run(page, with_clients=True)

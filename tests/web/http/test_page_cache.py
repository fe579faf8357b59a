"""Which texts of pages are in memory, beside the pages themselves."""

from __future__ import annotations

from private_pypi.web.http import page_cache
from private_pypi.web.http.page_cache import Page, PageCache, PageKey, make_page

LINE = "<a>link</a>\n"


def kept_page(cache: PageCache, number: int, length: int) -> Page:
    key = PageKey(cache, f"project-{number}", 1, "any", "")
    text = f"{number:08}" + LINE * ((length - 8) // len(LINE))
    return cache.get(key, lambda: make_page(text, "text/html", 1))


def test_clients_that_do_not_accept_gzip_share_the_text_of_a_long_page() -> None:
    cache = PageCache()
    page = kept_page(cache, 1, 200_000)
    assert page.is_compressed
    assert cache.find_text(page) is None
    text = cache.text(page)
    assert text == b"00000001" + LINE.encode() * (199_992 // len(LINE))
    assert cache.find_text(page) is text
    assert cache.text(page) is text


def test_texts_take_only_so_much_memory() -> None:
    cache = PageCache()
    pages = [kept_page(cache, number, 3 * 2**20) for number in range(5)]
    before = cache.size
    texts = [cache.text(page) for page in pages]
    assert [text[:8] for text in texts] == [f"{number:08}".encode() for number in range(5)]
    assert 0 < cache.size - before <= page_cache._TEXTS_BYTES
    assert [cache.find_text(page) is not None for page in pages] == [False] * 3 + [True] * 2
    assert (cache.hits, cache.misses) == (0, 5)  # they count pages


def test_the_text_of_a_short_page_is_not_kept() -> None:
    cache = PageCache()
    page = kept_page(cache, 1, 20_000)
    assert page.is_compressed
    before = cache.size
    assert cache.find_text(page) == cache.text(page)
    assert cache.size == before

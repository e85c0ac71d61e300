"""Threads of ours, and those of BLAS."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController

_LOCK = Lock()
_n_limiting = 0
_limiter: Any = None


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Our products are small: the threads of BLAS would wait for each other.

    Counted, since the limit is the process's and fits may overlap in threads.
    """
    global _limiter, _n_limiting
    with _LOCK:
        if _n_limiting == 0:
            _limiter = _controller().limit(limits=1, user_api="blas")
        _n_limiting += 1
    try:
        yield
    finally:
        with _LOCK:
            _n_limiting -= 1
            if _n_limiting == 0:
                _limiter.restore_original_limits()


def thread_map(n_threads: int) -> Callable[..., Iterable[Any]]:
    """``map``, in the order of the items; its threads live as long as it does."""
    return map if n_threads == 1 else ThreadPoolExecutor(n_threads).map

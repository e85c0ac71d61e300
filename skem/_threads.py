"""Threads of ours, and those of BLAS."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock
from typing import Any

from joblib import effective_n_jobs, parallel_config
from joblib.parallel import get_active_backend
from threadpoolctl import ThreadpoolController


class Counted:
    """A context of the whole process, for fits that may overlap in threads.

    The first that enters makes it, and the last that leaves ends it.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._lock, self._n_inside = make, Lock(), 0
        self._context: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._n_inside == 0:
                self._context = self._make()
                self._context.__enter__()
            self._n_inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._context.__exit__(None, None, None)


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


_one_blas_thread = Counted(lambda: _controller().limit(limits=1, user_api="blas"))


def one_blas_thread() -> Counted:
    """Our products are small: the threads of BLAS would wait for each other."""
    return _one_blas_thread


def own_threads(n_jobs: int | None) -> int:
    """The number of threads on this machine: joblib's backend may be a cluster's."""
    backend, _ = get_active_backend()
    if type(backend).__module__ == "joblib._parallel_backends":
        return int(effective_n_jobs(n_jobs))
    with parallel_config(backend="threading"):
        return 1 if n_jobs is None else int(effective_n_jobs(n_jobs))


def thread_map(n_jobs: int | None) -> Callable[..., Iterable[Any]]:
    """``map``, in the order of the items; its threads live as long as it does."""
    n_threads = own_threads(n_jobs)
    return map if n_threads == 1 else ThreadPoolExecutor(n_threads).map

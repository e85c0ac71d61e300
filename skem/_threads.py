"""Our own threads, and those of BLAS."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property, partial
from threading import Lock, local
from typing import Any

from joblib import effective_n_jobs, parallel_config
from joblib.parallel import BACKENDS, get_active_backend
from threadpoolctl import ThreadpoolController

# Backends of other packages, such as that of dask, count the cores of a cluster.
_LOCAL_BACKENDS = ("loky", "multiprocessing", "sequential", "threading")


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


class OneThread:
    """A context in which libraries use one thread, for fits that may overlap in threads.

    ``libraries()`` returns objects with ``get_num_threads`` and ``set_num_threads``. In some
    libraries the number belongs to a thread, in others to the process. Each thread therefore
    sets back what it has changed itself: numbers above 1. Another thread may then get its
    threads back before its end.
    """

    def __init__(self, libraries: Callable[[], Iterable[Any]]) -> None:
        self._libraries, self._lock, self._own = libraries, Lock(), local()

    def __enter__(self) -> None:
        depth = getattr(self._own, "depth", 0)
        if not depth:
            self._own.before = []
            try:
                self._limit()
            except BaseException:  # Ctrl-C
                self._give_back()
                raise
        self._own.depth = depth + 1

    def __exit__(self, *error: object) -> None:
        self._own.depth -= 1
        if not self._own.depth:
            self._give_back()

    def _limit(self) -> None:
        with self._lock:
            found = [(library, library.get_num_threads()) for library in self._libraries()]
            self._own.before = [(library, n) for library, n in found if n > 1]
            for library, _ in self._own.before:
                library.set_num_threads(1)

    def _give_back(self) -> None:
        with self._lock:
            for library, n in self._own.before:
                library.set_num_threads(n)


@cache
def _of_blas() -> list[Any]:
    libraries = ThreadpoolController().lib_controllers
    return [library for library in libraries if library.user_api == "blas"]


_one_blas_thread = OneThread(_of_blas)


def one_blas_thread() -> OneThread:
    """Limit BLAS to one thread: in our small products its threads wait for each other."""
    return _one_blas_thread


def own_threads(n_jobs: int | None) -> int:
    """Return the number of threads on this machine; joblib may count those of a cluster."""
    backend, _ = get_active_backend()
    if type(backend) in [BACKENDS.get(name) for name in _LOCAL_BACKENDS]:
        return int(effective_n_jobs(n_jobs))
    with parallel_config(backend="threading"):
        return 1 if n_jobs is None else int(effective_n_jobs(n_jobs))


def _call(function: Callable[..., Any], *items: Any) -> Any:
    with one_blas_thread():
        return function(*items)


class ThreadMap:
    """``map`` over ``n_jobs`` threads, in the order of the items.

    The threads start at the first call. A pickled copy starts threads where it arrives.
    """

    def __init__(self, n_jobs: int | None) -> None:
        self._n_jobs = n_jobs

    @cached_property
    def _map(self) -> Callable[..., Iterable[Any]]:
        n_threads = own_threads(self._n_jobs)
        if n_threads == 1:
            return map
        pool = ThreadPoolExecutor(n_threads)
        return lambda function, *items: pool.map(partial(_call, function), *items)

    def __call__(self, function: Callable[..., Any], *items: Iterable[Any]) -> Iterable[Any]:
        return self._map(function, *items)

    def __reduce__(self) -> tuple[type, tuple[int | None]]:
        return type(self), (self._n_jobs,)

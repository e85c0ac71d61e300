"""What continuous integration checks, one session each: ``nox -s tests``."""

import nox

nox.options.sessions = ["lint", "types", "tests"]
CONSTRAINTS = ("-c", "constraints.txt")
FAST = "not slow and not mnist"
OLDEST = "hypothesis", "pandas", "polars", "pytest", "pytest-xdist", "skops"
OLDEST_TESTS = "tests/base", "tests/mixture/test_estimator.py", "tests/template/test_model.py"


@nox.session
def lint(session):
    """Style and spelling."""
    session.install("ruff>=0.12", "codespell>=2.4")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("codespell")


@nox.session
def types(session):
    """Static types."""
    session.install(*CONSTRAINTS, "-e", ".[test]")
    session.run("mypy")


@nox.session
def tests(session):
    """The fast tests, or those that are asked for: ``nox -s tests -- -m slow``."""
    session.install(*CONSTRAINTS, "-e", ".[test]")
    session.run("pytest", *(session.posargs or ("-n", "auto", "-m", FAST)))


@nox.session
def coverage(session):
    """Branch coverage of what is not compiled."""
    session.install(*CONSTRAINTS, "-e", ".[test]")
    session.run("pytest", "-n", "auto", "-m", FAST, "--cov", "--cov-report=term-missing")


@nox.session(python=["3.11", "3.12"])
def oldest(session):
    """The oldest versions that are supported."""
    session.install("-c", "constraints-oldest.txt", "-e", ".[fast,plot,torch]", *OLDEST)
    session.run("pytest", "-n", "auto", "-m", FAST, *OLDEST_TESTS)


@nox.session
def docs(session):
    """The documentation, in docs/_build/html."""
    session.install(*CONSTRAINTS, "-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "docs", "docs/_build/html")

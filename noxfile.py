"""What continuous integration checks, one session each: ``nox -s tests``."""

import nox

nox.options.sessions = ["lint", "types", "tests"]
CONSTRAINTS = ("-c", "constraints.txt")
FAST = "not slow and not mnist"


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


@nox.session
def minimum(session):
    """The lower bounds of the dependencies, without the extras."""
    lowest = "numpy==2.0.*", "scipy==1.13.*", "joblib==1.4.*", "threadpoolctl==3.5.*"
    session.install("-e", ".", *lowest, "scikit-learn==1.9.*")
    session.install("pytest", "pandas", "polars", "matplotlib", "hypothesis")
    files = "tests/mixture/test_estimator.py", "tests/template", "tests/test_loop.py"
    session.run("pytest", *files, "-m", FAST)


@nox.session
def docs(session):
    """The documentation, in docs/_build/html."""
    session.install(*CONSTRAINTS, "-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "docs", "docs/_build/html")

"""The tests of other packages run only if they are asked for: ``pytest -m clients``."""


def pytest_ignore_collect(collection_path, config):
    """Do not even import the packages otherwise."""
    return True if "clients" not in config.option.markexpr else None

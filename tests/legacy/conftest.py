from tests.data.conftest import config, squares  # noqa: F401

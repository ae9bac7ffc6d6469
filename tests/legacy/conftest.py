from tests.data.conftest import config, matterport, resize_meta, squares  # noqa: F401

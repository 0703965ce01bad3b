import pytest

pytest.register_assert_rewrite("tests.codec.helpers")

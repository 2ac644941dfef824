"""Kernels to mount with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.apply import kernels

Preexec = Callable[[], None] | None


@pytest.fixture(params=list(kernels.KERNELS))
def kernel(request: pytest.FixtureRequest) -> Preexec:
    """What makes the runtime's process one of an older kernel."""
    return kernels.refuse(kernels.KERNELS[request.param])

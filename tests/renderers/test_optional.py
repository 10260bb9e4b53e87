"""What a user is told who chooses a package that cannot run here."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from studio.errors import StudioError
from studio.renderers.optional import PACKAGES, OptionalPackage


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_package_that_is_not_installed_is_refused(
    package: OptionalPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StudioError, match=rf"{package.name}; pip install .*{package.option} = 'auto'"):
        package.insist(torch.device("cuda"))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_cpu_is_refused_by_what_needs_cuda(
    package: OptionalPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    if not package.needs_cuda:
        package.insist(torch.device("cpu"))
        return
    with pytest.raises(StudioError, match=rf"needs a CUDA device .*{package.option} = 'auto'"):
        package.insist(torch.device("cpu"))

"""What the operators over native kernels share: where an entry runs, pointers, checks of what comes in."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from studio.errors import StudioError
from studio.ops.library import Library, select


class Launch(ctypes.Structure):
    """StudioLaunch of kernels/abi.h."""

    _fields_ = (("threads", ctypes.c_int32), ("device", ctypes.c_int32), ("stream", ctypes.c_void_p))


def launch(tensor: Tensor) -> Launch:
    """On the device of ``tensor``, with as many threads as torch uses."""
    stream = torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else None
    return Launch(torch.get_num_threads(), tensor.device.index or 0, stream)


def pointers(*tensors: Tensor | None) -> list[int | None]:
    """Of contiguous tensors, which must outlive the call."""
    assert all(tensor is None or tensor.is_contiguous() for tensor in tensors)
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    """The same values in the order that kernels read."""
    return [None if tensor is None else tensor.detach().contiguous() for tensor in tensors]


def native(tensor: Tensor) -> Library:
    """The library for ``tensor``; there is one where ``select`` found one before."""
    found = select(tensor.device, tensor.dtype, "native")
    assert found is not None
    return found


def must_be_alike(**tensors: Tensor) -> None:
    """Refuses tensors that differ from the first in type or device.

    Raises:
        StudioError: one does.
    """
    (first_name, first), *others = tensors.items()
    for name, tensor in others:
        if (tensor.dtype, tensor.device) != (first.dtype, first.device):
            raise StudioError(
                f"{name} is {tensor.dtype} on {tensor.device} but {first_name} {first.dtype} on "
                f"{first.device}; they must be alike"
            )

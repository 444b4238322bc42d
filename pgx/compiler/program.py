"""Compiled functions in shared libraries: storage and calls."""

import ctypes
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import Tensor

_SOURCE = Path(__file__).with_name("scan.cpp")
_MAX_CONCURRENT_CALLS = 2  # calls of one program without Python's lock; a third call would wait


def write_library(library: bytes, path: Path) -> None:
    """Write a shared library atomically, with its checksum appended, which loaders ignore."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    scratch.write_bytes(library + hashlib.sha256(library).digest())
    scratch.replace(path)


class Program:
    """Compiled function of tensors from a shared library of torch's compiler.

    Args:
        path: path of the library.

    Raises:
        RuntimeError: the library cannot be loaded, or its checksum is wrong.
    """

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        if (
            hashlib.sha256(data[:-32]).digest() != data[-32:]
        ):  # loading a truncated library may crash the process
            raise RuntimeError("its checksum is wrong")
        self.path = path
        self._runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        outputs: list[Tensor] = self._runner.run(tensors)
        return outputs

    def scan(
        self, fixed: Sequence[Tensor], items: Sequence[Tensor], state: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Compute result, *state = program(*fixed, item, *state) for each item, without Python's lock.

        Returns:
            The results, and the last state.
        """
        handles = [_handles(tensors) for tensors in (fixed, items, state)]
        results = (ctypes.c_void_p * len(items))()
        error = _scan_library(self.path.parent)(
            self._library.AOTInductorModelContainerRun,
            _torch().aoti_torch_new_tensor_handle,
            self._container,
            *(argument for array in handles for argument in (array, ctypes.c_size_t(len(array)))),
            results,
        )
        _drop(handles[0])
        if error:
            raise RuntimeError(f"{self.path}: a compiled step failed (its code: {error})")
        return _tensors(results), _tensors(handles[2])

    @cached_property
    def _library(self) -> ctypes.CDLL:
        return ctypes.CDLL(str(self.path))

    @cached_property
    def _container(self) -> ctypes.c_void_p:
        container = ctypes.c_void_p()
        error = self._library.AOTInductorModelContainerCreateWithDevice(
            ctypes.byref(container), ctypes.c_size_t(_MAX_CONCURRENT_CALLS), b"cpu", None
        )
        if error:
            raise RuntimeError(f"{self.path}: cannot be loaded (code {error})")
        return container


_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


def _handles(tensors: Sequence[Tensor]) -> "ctypes.Array[ctypes.c_void_p]":
    """Return new handles of tensors; the caller must pass each on or drop it."""
    capsules = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(list(tensors))
    return (ctypes.c_void_p * len(capsules))(*(_capsule_pointer(capsule, None) for capsule in capsules))


def _tensors(handles: "ctypes.Array[ctypes.c_void_p]") -> list[Tensor]:
    """Return the tensors of handles; the handles become invalid."""
    capsules = [_capsule(handle, None, None) for handle in handles]
    tensors: list[Tensor] = torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs(capsules)
    return tensors


def _drop(handles: "ctypes.Array[ctypes.c_void_p]") -> None:
    for handle in handles:
        _torch().aoti_torch_delete_tensor_object(ctypes.c_void_p(handle))


@cache
def _torch() -> ctypes.CDLL:
    """Return torch's C interface, from the library that this process has already loaded."""
    return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))


@cache
def _scan_library(folder: Path) -> "ctypes._NamedFuncPointer":
    """Return `scan` of scan.cpp, compiled at first use and stored in the folder."""
    source = _SOURCE.read_bytes()
    path = folder / f"fold_{hashlib.sha256(source).hexdigest()[:16]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "scan.so"
            compiler = os.environ.get("CXX", "g++")
            subprocess.run(
                [compiler, "-O2", "-shared", "-fPIC", str(_SOURCE), "-o", str(made)],
                check=True,
                capture_output=True,
            )
            made.replace(path)
    return ctypes.CDLL(str(path)).scan

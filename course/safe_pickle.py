"""Pickles that hold arrays, read without running anything.

A pickle names classes and functions that the reader imports and calls, so a pickle from a stranger
can run any program. This reader knows stand-ins for numpy's arrays, scipy's matrices, chumpy's
arrays (FLAME's authors used all three) and, on request, torch's tensors. Nothing else.
"""

import io
import pickle
import re
from collections import OrderedDict

import numpy as np
import torch

LARGEST = 10**8  # entries of a sparse matrix written out; FLAME's has 25,115


class RefusedError(ValueError):
    """The pickle asked for something that is no array."""


class StandIn:
    """What a pickle may build: it keeps its state, and ``value()`` turns that into numpy."""

    __slots__ = ("state",)

    def __setstate__(self, state):
        self.state = state


class NumberType(StandIn):
    """For ``numpy.dtype``, whose own unpickling believes whatever the file says of memory."""

    __slots__ = ("code",)

    def __init__(self, code, *_):
        self.code = str(code)
        self.state = (3, "|")
        if not re.fullmatch(r"[<>|=]?([fiu][1248]|b1|[SU]\d{1,4}|O8?)", self.code):
            raise RefusedError(f"the file asks for the number type {self.code[:20]}")

    def value(self):
        dtype = np.dtype(self.code)
        return dtype.newbyteorder(self.state[1]) if self.state[1] in ("<", ">") else dtype


class Array(StandIn):
    """For ``numpy.ndarray``: shape, type and bytes, checked against each other by numpy."""

    __slots__ = ()

    def __init__(self, *_):
        self.state = None

    def value(self):
        _, shape, dtype, columns_first, content = self.state
        dtype = dtype.value()
        if dtype.kind == "O":  # numpy wraps a saved dict so; the list holds the things themselves
            flat = np.empty(len(content), object)
            flat[:] = [plain(item) for item in content]
        else:
            flat = np.frombuffer(_bytes(content), dtype).copy()
        return flat.reshape(shape, order="F" if columns_first else "C")


class ChumpyArray(StandIn):
    """For ``chumpy.ch.Ch``: the numbers, nothing of the derivatives."""

    __slots__ = ()

    def value(self):
        return plain(self.state["x"])


class SparseRows(StandIn):
    """For scipy's csr matrices, whose compiled code trusts the indices in the file."""

    __slots__ = ()
    columns_first = False

    def value(self):
        state = plain(self.state)
        shape = tuple(int(n) for n in state.get("_shape", state.get("shape")))
        if len(shape) != 2 or min(shape) < 0 or shape[0] * shape[1] > LARGEST:
            raise ValueError(f"a sparse matrix of shape {shape}")
        if self.columns_first:
            shape = shape[::-1]
        data, minor, counts = state["data"], state["indices"], np.diff(state["indptr"])
        if len(counts) != shape[0] or (counts < 0).any() or counts.sum() != len(data):
            raise ValueError("a sparse matrix whose index does not fit its data")
        inside = len(minor) == 0 or 0 <= minor.min() <= minor.max() < shape[1]
        if len(minor) != len(data) or not inside:
            raise ValueError("a sparse matrix with entries outside its shape")
        dense = np.zeros(shape, data.dtype)
        np.add.at(dense, (np.repeat(np.arange(shape[0]), counts), minor), data)
        return dense.T if self.columns_first else dense


class SparseColumns(SparseRows):
    """For csc matrices: the major axis is the column."""

    __slots__ = ()
    columns_first = True


class _Maker:
    """A function for a pickle to call; unlike a plain function it cannot be altered by one."""

    __slots__ = ("_make",)

    def __init__(self, make):
        self._make = make

    def __call__(self, *args):
        return self._make(*args)

    def __setstate__(self, state):
        raise RefusedError("the file tries to alter a function, which no FLAME file needs")


def _bytes(content):
    if isinstance(content, str):  # Python 2 strings arrive as text
        return content.encode("latin1")
    if not isinstance(content, bytes | bytearray):  # of a number Python makes so many empty bytes
        raise RefusedError(f"the file has {type(content).__name__} where bytes belong")
    return bytes(content)


def _byte_array(content=b"", *_):
    return bytearray(_bytes(content))


def _encode(text, encoding):
    if encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"the file asks for the text encoding {encoding}")
    return text.encode("latin1")


def _scalar(dtype, content):
    return np.frombuffer(_bytes(content), dtype.value())[0]


def _from_buffer(content, dtype, shape, order, *_):
    array = Array()
    array.state = (1, shape, dtype, order == "F", content)
    return array


def _reconstruct_old(kind, base, state):
    """``copy_reg._reconstructor``, which the oldest pickles use, for our stand-ins only."""
    if kind not in (ChumpyArray, SparseRows, SparseColumns) or base is not object:
        raise RefusedError(f"the file asks for an object of {kind}")
    return kind()


def _tensor(storage, offset, size, stride, *_):
    """A torch tensor as an array; torch checks that it fits into its storage."""
    rebuilt = torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict())
    return rebuilt.numpy()


def _storage(content):
    return torch.load(io.BytesIO(_bytes(content)), weights_only=True)


_KNOWN = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): NumberType,
    ("chumpy.ch", "Ch"): ChumpyArray,
    ("chumpy", "Ch"): ChumpyArray,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _Maker(_encode),
}
for _core in ("numpy.core", "numpy._core"):
    _KNOWN[f"{_core}.multiarray", "_reconstruct"] = _Maker(Array)
    _KNOWN[f"{_core}.multiarray", "scalar"] = _Maker(_scalar)
    _KNOWN[f"{_core}.numeric", "_frombuffer"] = _Maker(_from_buffer)
for _builtins, _registry in (("builtins", "copyreg"), ("__builtin__", "copy_reg")):
    _KNOWN[_builtins, "set"] = set
    _KNOWN[_builtins, "object"] = object
    _KNOWN[_builtins, "bytearray"] = _Maker(_byte_array)
    _KNOWN[_registry, "_reconstructor"] = _Maker(_reconstruct_old)
for _kind, _stand_in in (("csc", SparseColumns), ("csr", SparseRows)):
    for _module in ("scipy.sparse", f"scipy.sparse.{_kind}", f"scipy.sparse._{_kind}"):
        _KNOWN[_module, f"{_kind}_matrix"] = _KNOWN[_module, f"{_kind}_array"] = _stand_in
_TORCH = {
    ("torch._utils", "_rebuild_tensor_v2"): _Maker(_tensor),
    ("torch.storage", "_load_from_bytes"): _Maker(_storage),
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, tensors):
        super().__init__(file, encoding="latin1")
        self.known = {**_KNOWN, **_TORCH} if tensors else _KNOWN

    def find_class(self, module, name):
        if (module, name) in self.known:
            return self.known[module, name]
        raise RefusedError(
            f"the file asks for {module}.{name}; a FLAME file needs only numpy, scipy.sparse and "
            "chumpy arrays, so it was refused and nothing in it was run"
        )


def load(path, tensors=False):
    """What a pickle holds, or a .npy with a pickle inside: dicts and arrays.

    ``tensors`` also admits torch tensors, read as arrays. Raises ValueError with one sentence
    when the file is damaged or asks for anything that is no array; OSError when it is not there.
    """
    with path.open("rb") as file:
        try:
            if file.read(6) == b"\x93NUMPY":
                file.seek(0)
                old = np.lib.format.read_magic(file) == (1, 0)
                header = np.lib.format
                (header.read_array_header_1_0 if old else header.read_array_header_2_0)(file)
            else:
                file.seek(0)
            content = plain(_Unpickler(file, tensors).load())
        except RefusedError as error:
            raise ValueError(f"{path} was not read: {error}.") from None
        except Exception as error:  # a damaged pickle can raise nearly anything
            reason = str(error).rstrip(".") or type(error).__name__
            raise ValueError(f"{path} is cut short or damaged ({reason}).") from None
    # numpy wraps a saved dict in an array of nothing but it
    return content.item() if isinstance(content, np.ndarray) and content.ndim == 0 else content


def plain(value):
    """Stand-ins to numpy, also inside dicts and lists."""
    if isinstance(value, StandIn):
        return value.value()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value

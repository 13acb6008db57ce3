from typing import Any

import numpy as np
import numpy.typing as npt

_Offsets = npt.NDArray[np.int32]
_Data = npt.NDArray[np.uint8]

def equal_to(offsets: _Offsets, data: _Data, wanted: bytes, found: npt.NDArray[Any]) -> None: ...
def equal_pairs(
    offsets: _Offsets, data: _Data, other_offsets: _Offsets, other_data: _Data, found: npt.NDArray[Any]
) -> None: ...
def gathered_offsets(offsets: _Offsets, indices: npt.NDArray[np.int64], gathered: _Offsets) -> int: ...
def gather(
    offsets: _Offsets, data: _Data, indices: npt.NDArray[np.int64], gathered: _Offsets, target: _Data
) -> None: ...
def to_list(offsets: _Offsets, data: _Data, valid: npt.NDArray[Any] | None, text: bool) -> list[Any]: ...

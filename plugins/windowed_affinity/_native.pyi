from typing import Any

from numpy.typing import NDArray

def instruction_sets() -> list[str]: ...
def windowed_affinity(
    query: NDArray[Any],
    keys: NDArray[Any],
    values: NDArray[Any],
    dilation: NDArray[Any],
    offsets: NDArray[Any] | None,
    out: NDArray[Any],
    radius: int,
    scale: float,
    top_k: int,
    shares: bool,
    threads: int,
    instruction_set: str,
) -> None: ...

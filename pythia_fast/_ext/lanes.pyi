from typing import Any

from pythia_fast._ext.batch_memory import BatchMemory

def lanes_of(memory: BatchMemory, by_key: bool, lanes: Any) -> None: ...

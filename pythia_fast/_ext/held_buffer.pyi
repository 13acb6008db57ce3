from typing_extensions import Buffer

class HeldBuffer:
    def __init__(self, source: Buffer, item_bytes: int = 1, writable: bool = False) -> None: ...

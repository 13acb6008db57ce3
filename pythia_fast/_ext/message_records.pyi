from typing import Any

WITH_PLACE: int
WITH_TIME: int
WITH_OFFSET: int
DONE: int
FULL: int
BROKEN: int
MESSAGE_BYTES: int

def encode_messages(
    messages: Any, raw: Any, places: list[tuple[int, bytes, int]], what: int, region: Any, start: int, end: int
) -> tuple[int, int, int]: ...

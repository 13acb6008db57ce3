from pythia_fast._ext.source import NativeSource

class MessageLimit(NativeSource):
    most: int
    def __init__(self, behind: NativeSource, most: int) -> None: ...
    @property
    def taken(self) -> int: ...

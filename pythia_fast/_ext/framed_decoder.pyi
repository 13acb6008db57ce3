from collections.abc import Callable

from pythia_fast._ext.decoder import NativeDecoder
from pythia_fast._ext.registry_decoder import RegistryDecoder, SchemaReader

class FramedDecoder(RegistryDecoder):
    def __init__(
        self, inner: NativeDecoder, *, skips_frame: bool, ask: Callable[[int], SchemaReader | None]
    ) -> None: ...

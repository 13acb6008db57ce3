"""FramedDecoder and its base: what was not made as it should be decodes nothing, and is not followed into memory."""

from __future__ import annotations

import pytest

from pythia_fast._ext.avro_decoder import AvroDecoder
from pythia_fast._ext.decoder import NativeDecoder
from pythia_fast._ext.framed_decoder import FramedDecoder
from pythia_fast._ext.registry_decoder import RegistryDecoder


@pytest.mark.parametrize("kind", [RegistryDecoder, FramedDecoder, AvroDecoder])
def test_one_that_was_never_initialised_learns_nothing(kind: type[RegistryDecoder]) -> None:
    made = kind.__new__(kind)
    for use in (made.learn, lambda: made.know(7, None)):
        with pytest.raises(RuntimeError, match=f"{kind.__name__} was not made by its __init__"):
            use()


def test_an_inner_decoder_that_decodes_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="the inner decoder decodes nothing"):
        FramedDecoder(NativeDecoder(), skips_frame=True, ask=lambda number: None)

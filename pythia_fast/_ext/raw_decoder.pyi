from pythia_fast._ext.decoder import NativeDecoder
from pythia_fast._ext.plan import Plan

class RawDecoder(NativeDecoder):
    def __init__(self, plan: Plan) -> None: ...

class VerbatimDecoder(NativeDecoder):
    def __init__(self, plan: Plan) -> None: ...

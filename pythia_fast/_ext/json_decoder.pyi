from pythia_fast._ext.decoder import NativeDecoder
from pythia_fast._ext.plan import Plan

ENVIRONMENT: str
KERNELS: tuple[str, ...]

def chosen_simd() -> str: ...
def available_simd() -> tuple[str, ...]: ...

class JsonDecoder(NativeDecoder):
    plan: Plan
    simd: str
    @property
    def scattering(self) -> bool: ...
    def __init__(self, plan: Plan, simd: str | None = None) -> None: ...

# cython: language_level=3
"""JsonDecoder: one JSON object a payload, into the columns of a Plan.

The work is done by the C kernel (json_kernel.h), which is compiled twice: ``scalar`` for every processor, and
``avx2``. This class picks one and keeps the prepared plan alive.
"""

import os

from libc.stdint cimport int32_t, uint8_t

from pythia_fast._ext.decoder cimport NativeDecoder, pf_decoder
from pythia_fast._ext.plan cimport Plan, pf_columns, pf_plan

from pythia_fast.errors import ConfigError

cdef extern from "decoder.h":
    ctypedef struct pf_refusal:
        pass

cdef extern from "json_decoder.h" nogil:
    ctypedef int (*pf_decode)(pf_decoder *, pf_columns *, const uint8_t *, size_t, pf_refusal *)
    ctypedef struct pf_json_struct:
        int32_t scatter
    ctypedef struct pf_json:
        pf_decoder decoder
        pf_json_struct *structs
    pf_json *pf_json_new(const pf_plan *plan, pf_decode decode)
    void pf_json_free(pf_json *json)
    pf_decode pf_json_kernel(const char *simd)

ENVIRONMENT = "PYTHIA_FAST_SIMD"
KERNELS = ("scalar", "avx2")


def chosen_simd():
    """The kernel that the environment or else the processor chooses. Raises ConfigError where it cannot be run."""
    return _choose(None)


def available_simd():
    """The kernels that this processor can run, the fastest last."""
    return tuple(name for name in KERNELS if pf_json_kernel(name.encode()) != NULL)


cdef class JsonDecoder(NativeDecoder):
    """Decodes what ``msgspec.json.decode(payload, type=Schema)`` accepts, to the same values.

    Two things differ: an integer beyond 64 bits is out of range, and UTF-8 is checked in skipped values
    and unknown keys too. Refusals name reason, byte offset and column (``pf_refusal``).

    Parameters:
        plan: the compiled schema; kept alive.
        simd: ``scalar`` or ``avx2``. None takes ``PYTHIA_FAST_SIMD`` from the environment, and where that
            is not set, the fastest that the processor has.

    Raises ConfigError for a kernel that does not exist or that this processor cannot run.
    """

    cdef pf_json *json
    cdef readonly Plan plan
    cdef readonly str simd

    def __cinit__(self, Plan plan not None, simd=None):
        self.simd = _choose(simd)
        self.plan = plan
        self.json = pf_json_new(&plan.plan, pf_json_kernel(self.simd.encode()))
        if self.json == NULL:
            raise MemoryError()
        self.decoder = &self.json.decoder

    @property
    def scattering(self):
        """Whether rows are now read with shuffled keys in mind (json_scatter.h). Only speed depends on it."""
        return self.json.structs[0].scatter > 0

    def __dealloc__(self):
        pf_json_free(self.json)


def _choose(asked):
    available = available_simd()
    where = "simd="
    if asked is None:
        asked = os.environ.get(ENVIRONMENT)
        where = f"{ENVIRONMENT}="
        if not asked:
            return available[len(available) - 1]
    if asked not in KERNELS:
        raise ConfigError(f"{where}{asked}: no such kernel; choose one of {', '.join(KERNELS)}")
    if asked not in available:
        raise ConfigError(f"{where}{asked}: this processor cannot run it; it can run {', '.join(available)}")
    return asked

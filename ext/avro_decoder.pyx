# cython: language_level=3
"""AvroDecoder: one record in Avro's binary encoding a payload (kernel: ext/avro_decoder.h)."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pythia_fast._ext.decoder cimport pf_decoder, pf_refusal
from pythia_fast._ext.plan cimport Plan, pf_columns, pf_plan
from pythia_fast._ext.registry_decoder cimport RegistryDecoder, SchemaReader, pf_registry


cdef extern from "avro_program.h":
    ctypedef struct pf_avro_symbol:
        const uint8_t *text
        uint32_t size
    ctypedef struct pf_avro_node:
        uint8_t op, use, found, takes_none, aware
        int32_t column, record
        uint32_t first, n, absent, n_absent
        uint64_t size
    ctypedef struct pf_avro_program:
        const pf_avro_node *nodes
        const uint32_t *children
        const pf_avro_symbol *symbols
        const uint32_t *absents

cdef extern from "avro_decoder.h":
    ctypedef struct pf_avro_decoder:
        pf_decoder decoder
        const pf_plan *plan
        const pf_avro_program *program
        pf_registry registry
    int pf_avro_decode(pf_decoder *self, pf_columns *batch, const uint8_t *payload, size_t size,
                       pf_refusal *why) noexcept nogil


cdef class AvroProgram(SchemaReader):
    """A writer's schema resolved against the columns of a plan, as C structs.

    ``nodes``: those of ``pythia_fast.avro.resolution.Resolved``, whose children, symbols and absent fields are numbered
    from 0 in this program. Whoever makes one has checked them: the decoder does not. Raises MemoryError.
    """

    cdef pf_avro_program program
    cdef readonly Plan plan
    cdef pf_avro_node *_nodes
    cdef uint32_t *_children
    cdef pf_avro_symbol *_symbols
    cdef uint32_t *_absents
    cdef list _texts

    def __init__(self, Plan plan not None, list nodes not None):
        cdef pf_avro_node *node
        cdef uint32_t n_children = 0, n_symbols = 0, n_absents = 0
        cdef bytes text
        if self._nodes != NULL:
            raise RuntimeError("an AvroProgram is built once")
        self.plan = plan
        self._texts = [symbol.encode() for given in nodes for symbol in given.symbols]
        self._nodes = <pf_avro_node *>calloc(len(nodes) + 1, sizeof(pf_avro_node))
        self._children = <uint32_t *>calloc(sum([len(given.children) for given in nodes]) + 1, sizeof(uint32_t))
        self._symbols = <pf_avro_symbol *>calloc(len(self._texts) + 1, sizeof(pf_avro_symbol))
        self._absents = <uint32_t *>calloc(sum([len(given.absent) for given in nodes]) + 1, sizeof(uint32_t))
        if not (self._nodes and self._children and self._symbols and self._absents):
            raise MemoryError()
        for text in self._texts:
            self._symbols[n_symbols].text = <const uint8_t *>PyBytes_AS_STRING(text)
            self._symbols[n_symbols].size = <uint32_t>PyBytes_GET_SIZE(text)
            n_symbols += 1
        n_symbols = 0
        node = self._nodes
        for given in nodes:
            node.op, node.use, node.found = <uint8_t>int(given.op), <uint8_t>int(given.use), <uint8_t>int(given.found)
            node.takes_none, node.aware = given.takes_none, given.aware
            node.column, node.record, node.size = given.column, given.record, given.size
            node.first, node.n = (n_symbols, len(given.symbols)) if given.symbols else (n_children, len(given.children))
            node.absent, node.n_absent = n_absents, len(given.absent)
            n_symbols += <uint32_t>len(given.symbols)
            for child in given.children:
                self._children[n_children] = child
                n_children += 1
            for absent in given.absent:
                self._absents[n_absents] = absent
                n_absents += 1
            node += 1
        self.program.nodes = self._nodes
        self.program.children = self._children
        self.program.symbols = self._symbols
        self.program.absents = self._absents
        self.reader = &self.program

    def __dealloc__(self):
        free(self._nodes)
        free(self._children)
        free(self._symbols)
        free(self._absents)


cdef class AvroDecoder(RegistryDecoder):
    """Decodes records that were written with one schema, or behind the number of theirs in a registry.

    Parameters:
        plan: of a Struct.
        program: what reads all payloads; None: each begins with the number of its schema.
        ask: the program for a number, None where there is none or it does not fit the columns. It may raise: then it is
            asked again.
    """

    cdef pf_avro_decoder native
    cdef Plan plan
    cdef AvroProgram program

    def __init__(self, Plan plan not None, AvroProgram program=None, *, ask=None):
        if (program is None) == (ask is None):
            raise ValueError("either one program, or someone to ask for them")
        if program is not None and program.plan is not plan:
            raise ValueError("a program of another plan")
        self.plan = plan
        self.program = program
        self.ask = ask
        self.native.decoder.decode = pf_avro_decode
        self.native.plan = &plan.plan
        if program is not None:
            self.native.program = &program.program
        self.registry = &self.native.registry
        self.decoder = &self.native.decoder

    def know(self, uint32_t number, SchemaReader reader):
        if reader is not None and not (isinstance(reader, AvroProgram) and (<AvroProgram>reader).plan is self.plan):
            raise ValueError("a program of another plan")
        RegistryDecoder.know(self, number, reader)

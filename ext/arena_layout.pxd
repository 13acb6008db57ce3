# What lies in the arena, as far as Cython reads or writes it.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from pythia_fast._ext.decoder cimport pf_refusal

cdef extern from "arena_layout.h" nogil:
    enum:
        PF_ARENA_MAGIC
        PF_CACHE_LINE
        PF_QUEUE_CAPACITY
        PF_SLOT_PARTITIONS
        PF_PARTITION_NAMES
        PF_TOPIC_BYTES
        PF_NO_PAYLOAD
        PF_SLOT_FREE
        PF_SLOT_FILLING
        PF_SLOT_READY
        PF_SLOT_HELD
        PF_SLOT_DONE
        PF_SLOT_OUTPUT_FULL
        PF_SLOT_PARKED
        PF_SLOT_WAITING
        PF_EARLY
        PF_ROW_UNMARKED
        PF_ROW_REJECTED
        PF_ROW_RETRY
        PF_UNDECODED
        PF_SIFTED
        PF_CIRCUIT_CLOSED
        PF_CIRCUIT_FAILING
        PF_CIRCUIT_OPEN
        PF_CIRCUIT_HALF_OPEN
        PF_SPARE_WAITS
        PF_SPARE_LEAVES
    ctypedef struct pf_message:
        int64_t offset
        int64_t timestamp_ms
        uint32_t partition
        uint32_t payload_at
        uint32_t payload_size
        uint32_t key_at
        int32_t key_size
        uint32_t headers_at
        uint32_t headers_size
        uint16_t attempts
        uint16_t deliveries
    uint16_t pf_count16(uint32_t count)
    ctypedef struct pf_refused:
        pf_refusal why
        uint32_t message
    ctypedef struct pf_slot_partition:
        uint32_t partition
        uint32_t messages
        int64_t first_offset
        int64_t next_offset
    ctypedef struct pf_partition_name:
        int32_t number
        uint32_t topic_size
        uint8_t topic[4096]
    ctypedef struct pf_progress:
        uint32_t rows_done, suspect_end, deaths, deaths_before
        uint64_t output_bytes
        uint32_t output_records, error_half, error_bytes, rejected, retried, failed, killed, in_hand
    ctypedef struct pf_slot:
        uint32_t state, worker, messages, decoded, rows, refused, raw_bytes, n_partitions, epoch, crashes, hurried
        uint64_t batch, opened_ns, published_ns, payload_bytes
        uint64_t taken_ns, completed_ns, output_bytes
        uint32_t output_records, error_bytes, rejected, retried, failed, error_half, round, waits_from, gathered
        uint32_t round_rows, later_rows
        uint64_t due_ns
    ctypedef struct pf_worker:
        uint32_t tail, stop, collected, taken, completed, booted
        int32_t pid
        uint64_t batches, rows, handler_ns, heartbeat_ns, began_ns
        uint32_t queue[64]
    ctypedef struct pf_spare:
        uint32_t place, up
    ctypedef struct pf_arena:
        uint64_t magic
        uint64_t arena_bytes
        uint32_t n_workers, n_slots, slot_capacity, credit, n_spares
        uint64_t slot_bytes, workers_at, spares_at, names_at, slots_at
        uint64_t partitions_at, messages_at, good_at, refusals_at, status_at, retries_at, columns_at
        uint64_t raw_at, raw_bytes, errors_at, errors_bytes, output_at, output_bytes
        uint32_t done_signal, done_waiting, epoch, circuit, void_below, gathers, failed_probes

# cython: language_level=3
"""MessageLimit: a source that ends after so many messages, whatever it stands before."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from pythia_fast._ext.source cimport (
    PF_APPENDED,
    PF_SOURCE_END,
    PF_STALLED,
    NativeSource,
    pf_incoming,
    pf_sink,
    pf_source,
)


cdef struct counting_sink:
    pf_sink sink  # first: append() gets the struct back from it
    pf_sink *behind
    uint64_t left


cdef struct limited:
    pf_source source  # first: poll() and wake() get the struct back from it
    pf_source *behind
    counting_sink counting


cdef int append(pf_sink *self, const pf_incoming *message) noexcept nogil:
    cdef counting_sink *counting = <counting_sink *>self
    cdef int outcome
    if counting.left == 0:
        return PF_STALLED
    outcome = counting.behind.append(counting.behind, message)
    if outcome == PF_APPENDED:
        counting.left -= 1
    return outcome


cdef int poll(pf_source *self, pf_sink *sink, uint32_t max_messages, int64_t timeout_us) noexcept nogil:
    cdef limited *state = <limited *>self
    if state.counting.left == 0:
        return PF_SOURCE_END
    state.counting.behind = sink
    if state.counting.left < max_messages:
        max_messages = <uint32_t>state.counting.left
    return state.behind.poll(state.behind, &state.counting.sink, max_messages, timeout_us)


cdef void wake(pf_source *self) noexcept nogil:
    cdef limited *state = <limited *>self
    state.behind.wake(state.behind)


cdef class MessageLimit(NativeSource):
    """Polls ``behind``, and ends when it has appended ``most`` messages."""

    cdef limited native
    cdef NativeSource behind
    cdef readonly uint64_t most

    def __init__(self, NativeSource behind not None, uint64_t most):
        self.behind = behind
        self.most = most
        self.native.source.poll = poll
        self.native.source.wake = wake
        self.native.behind = behind.source
        self.native.counting.sink.append = append
        self.native.counting.left = most
        self.source = &self.native.source

    @property
    def taken(self):
        """Messages appended so far."""
        return self.most - self.native.counting.left

# cython: language_level=3
"""The rate limit's token bucket (ext/token_bucket.h), for tests that tell the time themselves."""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "token_bucket.h" nogil:
    ctypedef struct pf_token_bucket:
        uint32_t grain
        double burst
    void pf_bucket_init(pf_token_bucket *bucket, double rows_per_s, uint32_t most, uint32_t lanes)
    uint64_t pf_bucket_wait_ns(pf_token_bucket *bucket, uint64_t now_ns)
    uint32_t pf_bucket_take(pf_token_bucket *bucket, uint64_t now_ns, uint32_t most)
    void pf_bucket_give_back(pf_token_bucket *bucket, uint32_t rows)


cdef class TokenBucket:
    """Tokens for ``rows_per_s`` rows a second, taken a batch of at most ``most`` at a time in each of ``lanes``."""

    cdef pf_token_bucket bucket

    def __init__(self, double rows_per_s, uint32_t most, uint32_t lanes=1):
        pf_bucket_init(&self.bucket, rows_per_s, most, lanes)

    @property
    def grain(self):
        return self.bucket.grain

    @property
    def burst(self):
        return self.bucket.burst

    def wait_ns(self, uint64_t now_ns):
        """Nanoseconds until a batch can have its tokens."""
        return pf_bucket_wait_ns(&self.bucket, now_ns)

    def take(self, uint64_t now_ns, uint32_t most):
        """The rows that a batch of at most ``most`` may have now."""
        return pf_bucket_take(&self.bucket, now_ns, most)

    def give_back(self, uint32_t rows):
        """Of the rows taken, so many did not come."""
        pf_bucket_give_back(&self.bucket, rows)

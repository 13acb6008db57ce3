# cython: language_level=3
"""FileRecords: files or a stream, cut into records, as a pf_source. The cutting itself is C, in file_source.h."""

from os import strerror

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from posix.unistd cimport close

from pythia_fast._ext.source cimport NativeSource, pf_source


cdef extern from "file_source.h" nogil:
    ctypedef struct pf_wake_pipe:
        pass

    ctypedef struct pf_file:
        int fd
        uint32_t partition
        int64_t offset
        int64_t appended
        int64_t limit
        int64_t seen
        int64_t handled
        int64_t waiting
        uint8_t stream
        uint8_t last
        uint8_t final
        uint8_t done
        uint8_t shrunk
        int error

    ctypedef struct pf_pace:
        double factor

    ctypedef struct native_files "pf_file_source":
        pf_source source
        pf_wake_pipe wake
        pf_file *files
        uint32_t n_files
        uint32_t files_capacity
        int32_t current
        uint8_t *buffer
        size_t block_bytes
        size_t head_limit
        int spill_fd
        int spill_errno
        uint32_t record_bytes
        uint8_t format
        uint8_t follow
        uint8_t exhausted
        int64_t tail_wait_us
        int64_t next_look_us
        int64_t attended_us
        uint64_t looks
        uint64_t bytes_read
        pf_pace pace

    enum:
        PF_FORMAT_LINES
        PF_FORMAT_FRAMES
        PF_FORMAT_FIXED
        PF_FORMAT_RECORDS
        PF_FRAME_HEADER
        PF_TAIL_WAIT_MIN_US
        PF_ANEW

    int pf_wake_open(pf_wake_pipe *wake)
    void pf_wake_close(pf_wake_pipe *wake)
    int64_t pf_now_us()
    int64_t pf_frames_end(int fd, int64_t size)
    void pf_file_forget_buffer(native_files *files)
    void pf_file_set_calls(native_files *files)

ANEW = PF_ANEW

FORMATS = {
    "ndjson": PF_FORMAT_LINES,
    "msgpack-frames": PF_FORMAT_FRAMES,
    "fixed": PF_FORMAT_FIXED,
    "records": PF_FORMAT_RECORDS,
}


def frames_end(int fd, int64_t size):
    cdef int64_t end
    with nogil:
        end = pf_frames_end(fd, size)
    if end < 0:
        raise OSError(-end, strerror(-end))
    return end


cdef class FileRecords(NativeSource):
    cdef native_files native

    def __cinit__(
        self, str format not None, *, size_t max_payload_bytes, uint32_t record_bytes=0, bint follow=False,
        size_t block_bytes=1 << 18, double pace=0,
    ):
        memset(&self.native, 0, sizeof(self.native))
        self.native.format = FORMATS[format]
        if self.native.format == PF_FORMAT_FIXED and record_bytes == 0:
            raise ValueError("fixed records have a size")
        if pace and self.native.format != PF_FORMAT_RECORDS:
            raise ValueError("only records have a pace")
        if block_bytes < 16:
            raise ValueError("a block has at least 16 bytes")
        self.native.record_bytes = record_bytes
        self.native.spill_fd = -1
        self.native.head_limit = max_payload_bytes + 1 + PF_FRAME_HEADER
        self.native.block_bytes = block_bytes
        self.native.follow = follow
        self.native.pace.factor = pace
        self.native.current = -1
        self.native.tail_wait_us = PF_TAIL_WAIT_MIN_US
        cdef int error = pf_wake_open(&self.native.wake)
        if error:
            raise OSError(error, "pipe")
        pf_file_set_calls(&self.native)
        self.source = &self.native.source

    def __dealloc__(self):
        if self.source != NULL:
            pf_wake_close(&self.native.wake)
        self.close_files()
        if self.source != NULL and self.native.spill_fd >= 0:
            close(self.native.spill_fd)
        free(self.native.files)
        free(self.native.buffer)

    cdef void close_files(self) noexcept:
        cdef uint32_t i
        for i in range(self.native.n_files):
            if self.native.files[i].fd >= 0:
                close(self.native.files[i].fd)
        self.native.n_files = 0

    def add(
        self, int fd, uint32_t partition, int64_t offset, *, bint stream=False, bint last=True,
        bint final=False, int64_t limit=INT64_MAX, int64_t handled=0,
    ):
        cdef uint32_t capacity = self.native.files_capacity
        cdef pf_file *grown
        if self.native.n_files == capacity:
            capacity = capacity * 2 if capacity else 4
            grown = <pf_file *>realloc(self.native.files, capacity * sizeof(pf_file))
            if grown == NULL:
                raise MemoryError
            self.native.files = grown
            self.native.files_capacity = capacity
        cdef pf_file *file = &self.native.files[self.native.n_files]
        memset(file, 0, sizeof(pf_file))
        file.fd = fd
        file.partition = partition
        file.offset = offset
        file.appended = offset
        file.limit = limit
        file.seen = -1
        file.stream = stream
        file.last = last
        file.final = final or stream
        file.handled = handled
        self.native.n_files += 1
        self.native.next_look_us = 0

    cdef pf_file *find(self, uint32_t partition) except NULL:
        # They were added in ascending order.
        cdef uint32_t low = 0, high = self.native.n_files, middle
        while low < high:
            middle = (low + high) // 2
            if self.native.files[middle].partition < partition:
                low = middle + 1
            else:
                high = middle
        if low == self.native.n_files or self.native.files[low].partition != partition:
            raise KeyError(partition)
        return &self.native.files[low]

    def fd(self, uint32_t partition):
        return self.find(partition).fd

    def finish(self, uint32_t partition):
        cdef pf_file *file = self.find(partition)
        file.last = file.final = True
        self.native.next_look_us = 0

    def ends(self, uint32_t partition):
        cdef pf_file *file = self.find(partition)
        return file.offset, file.appended, file.waiting

    def remove(self, uint32_t partition):
        cdef pf_file *file = self.find(partition)
        pf_file_forget_buffer(&self.native)
        close(file.fd)
        self.native.n_files -= 1
        cdef uint32_t i
        for i in range(<uint32_t>(file - self.native.files), self.native.n_files):
            self.native.files[i] = self.native.files[i + 1]

    def states(self):
        cdef pf_file *file
        cdef uint32_t i
        found = []
        for i in range(self.native.n_files):
            file = &self.native.files[i]
            found.append((file.partition, file.offset, file.done, file.shrunk, file.error))
        return found

    def spill_to(self, int fd):
        if self.native.spill_fd >= 0:
            close(self.native.spill_fd)
        self.native.spill_fd = fd

    def spill_error(self):
        return self.native.spill_errno

    def attended(self):
        self.native.attended_us = pf_now_us()

    def exhausted(self):
        self.native.exhausted = True

    @property
    def looks(self):
        return self.native.looks

    @property
    def bytes_read(self):
        return self.native.bytes_read

    def close(self):
        pf_file_forget_buffer(&self.native)
        self.close_files()

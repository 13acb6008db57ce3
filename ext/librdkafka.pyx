# cython: language_level=3
"""The librdkafka that confluent-kafka brought, opened once a process.

Nothing of confluent-kafka is imported: its compiled module is opened as a library, which maps the
librdkafka that it links to, and the functions are looked up in there. A program that uses
confluent-kafka as well thus has one librdkafka in its process, not two.
"""

import ctypes.util
import importlib.util
import math
import re
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from libc.stdio cimport FILE, fclose
from libc.stdlib cimport free
from posix.dlfcn cimport RTLD_LAZY, RTLD_LOCAL, dlerror, dlopen

from kafka_notes cimport (
    PF_NOTE_ASSIGN,
    PF_NOTE_COMMIT_FAILED,
    PF_NOTE_CONSUMER_ERROR,
    PF_NOTE_ERROR,
    PF_NOTE_LOG,
    PF_NOTE_REVOKE,
    PF_NOTE_STATISTICS,
    PF_NOTE_WENT_BACK,
    pf_kafka_note,
    pf_kafka_note_free,
    pf_kafka_notes,
    pf_kafka_notes_take,
)
from rdkafka_api cimport RD_KAFKA_CONF_OK, RD_KAFKA_CONF_UNKNOWN, pf_rdkafka, pf_rdkafka_fill, rd_kafka_conf_t

from pythia_fast.errors import ConfigError, ExtensionError, UnknownOptionError

cdef extern from "<stdio.h>" nogil:
    FILE *open_memstream(char **text, size_t *size)

cdef extern from "<regex.h>" nogil:
    ctypedef struct regex_t:
        pass
    const int REG_EXTENDED
    const int REG_NOSUB
    int regcomp(regex_t *expression, const char *pattern, int flags)
    ctypedef struct regmatch_t:
        pass
    int regexec(const regex_t *expression, const char *text, size_t count, regmatch_t *matches, int flags)
    size_t regerror(int code, const regex_t *expression, char *text, size_t size)
    void regfree(regex_t *expression)

#: rd_kafka_incremental_assign and rd_kafka_produceva came with 1.6; 2.0 is the oldest that is tested for.
OLDEST_VERSION = 0x02000000
INSTALL = "pip install 'confluent-kafka>=2.6'"

_KINDS = {
    PF_NOTE_ASSIGN: "assign",
    PF_NOTE_REVOKE: "revoke",
    PF_NOTE_ERROR: "error",
    PF_NOTE_CONSUMER_ERROR: "consumer_error",
    PF_NOTE_LOG: "log",
    PF_NOTE_COMMIT_FAILED: "commit_failed",
    PF_NOTE_WENT_BACK: "went_back",
    PF_NOTE_STATISTICS: "statistics",
}

cdef pf_rdkafka _table
cdef void *_library = NULL
cdef bint _filled = False


def _library_path() -> str:
    spec = importlib.util.find_spec("confluent_kafka")
    if spec is not None and spec.submodule_search_locations:
        for folder in spec.submodule_search_locations:
            for suffix in EXTENSION_SUFFIXES:
                path = Path(folder, f"cimpl{suffix}")
                if path.exists():
                    return str(path)
    found = ctypes.util.find_library("rdkafka")
    if found is None:
        raise ExtensionError(f"Kafka needs librdkafka, which comes with confluent-kafka: {INSTALL}")
    return found


cdef const pf_rdkafka *rdkafka() except NULL:
    global _filled, _library
    if _filled:
        return &_table
    path = _library_path()
    cdef bytes encoded = path.encode()
    cdef void *library = dlopen(encoded, RTLD_LAZY | RTLD_LOCAL)
    if library == NULL:
        raise ExtensionError(f"cannot open {path}: {dlerror().decode(errors='replace')}; reinstall it: {INSTALL}")
    cdef const char *missing = pf_rdkafka_fill(&_table, library)
    if missing != NULL:
        raise ExtensionError(f"{path} lacks {missing.decode()}, which is part of librdkafka 2.x; {INSTALL}")
    if _table.version() < OLDEST_VERSION:
        raise ExtensionError(f"librdkafka {_table.version_str().decode()} in {path} is too old: {INSTALL}")
    _filled = True
    _library = library
    return &_table


cdef void *rdkafka_library() except NULL:
    rdkafka()
    return _library


def version():
    """The version of librdkafka, such as ``2.16.0``."""
    return rdkafka().version_str().decode()


def error_text(int code):
    """What librdkafka says about an error code."""
    return rdkafka().err2str(code).decode()


def error_name(int code):
    """The name of an error code, without the prefix of the enumeration."""
    return rdkafka().err2name(code).decode()


def option_names():
    """Every configuration property that this librdkafka knows, read from its own table of them."""
    return sorted(set(re.findall(r"^([a-z][a-z0-9._]*)\s*\|\s*[CP*]\s*\|", _option_table(), re.MULTILINE)))


def option_aliases():
    """Names of properties that are others' second names: second name -> first name."""
    return dict(re.findall(r"^([a-z][a-z0-9._]*)\s*\|.*\bAlias for `([a-z0-9._]+)`", _option_table(), re.MULTILINE))


def _option_table():
    cdef const pf_rdkafka *api = rdkafka()
    cdef char *text = NULL
    cdef size_t size = 0
    cdef FILE *stream = open_memstream(&text, &size)
    if stream == NULL:
        raise MemoryError
    api.conf_properties_show(stream)
    fclose(stream)
    try:
        return text[:size].decode()
    finally:
        free(text)


def option_default(str name):
    """The value that librdkafka gives a property by itself; None when there is none."""
    return option_value({}, name)


def option_value(options, str name):
    """The value that a property has among ``options``, by whichever of its names they are given; None: it has none.

    Of a topic's own properties there is none where no other of these is given. Raises as ``check_options`` does.
    """
    cdef const pf_rdkafka *api = rdkafka()
    cdef rd_kafka_conf_t *conf = configuration(dict(options))
    try:
        return _value_of(api, conf, name.encode())
    finally:
        api.conf_destroy(conf)


cdef object _value_of(const pf_rdkafka *api, rd_kafka_conf_t *conf, bytes name):
    cdef char value[512]
    cdef size_t size = sizeof(value)
    return value.decode() if api.conf_get(conf, name, value, &size) == RD_KAFKA_CONF_OK else None


cdef object _misread(const pf_rdkafka *api, rd_kafka_conf_t *conf, bytes name, bytes given):
    """What has become of a number that librdkafka took as another one, else None: it looks at the lower 32 bits alone,
    and of ``1.5`` or ``10s`` for a whole number at the leading digits alone."""
    if re.match(rb"\s*[+-]?\d", given) is None:
        return None
    taken = _value_of(api, conf, name)
    if taken is None or re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?", taken) is None:
        return None
    # What it tells of a fraction has six digits.
    return None if math.isclose(_number(given), float(taken), rel_tol=1e-5) else taken


cdef double _number(bytes text):
    """The number that is written there, NaN where it is none: nothing is equal to that."""
    for read in (float, lambda digits: int(digits, 0)):
        try:
            return read(text)
        except (ValueError, OverflowError):
            continue
    return math.nan


cdef rd_kafka_conf_t *configuration(dict options) except NULL:
    """A new configuration holding ``options``; the caller destroys it or makes a client of it."""
    cdef const pf_rdkafka *api = rdkafka()
    cdef rd_kafka_conf_t *conf = api.conf_new()
    cdef char reason[512]
    cdef bytes key, text
    cdef int result
    for name, value in options.items():
        key, text = name.encode(), value.encode()
        result = api.conf_set(conf, key, text, reason, sizeof(reason))
        if result == RD_KAFKA_CONF_OK:
            taken = _misread(api, conf, key, text)
            if taken is None:
                continue
            api.conf_destroy(conf)
            large = re.fullmatch(rb"[+-]?\d{10,}", text) is not None
            why = "the number is too large" if large else "not a whole number"
            raise ConfigError(f"Kafka option {name}={value!r}: {why}, librdkafka takes it as {taken}")
        api.conf_destroy(conf)
        if result == RD_KAFKA_CONF_UNKNOWN:
            raise UnknownOptionError(f"librdkafka {version()}", name, option_names())
        raise ConfigError(f"Kafka option {name}={value!r}: {reason.decode(errors='replace')}")
    return conf


def check_options(options):
    """Raise ConfigError for a property or value that librdkafka refuses, UnknownOptionError for a name."""
    rdkafka().conf_destroy(configuration(dict(options)))


def pattern_trouble(str pattern):
    """Why librdkafka cannot subscribe to a regular expression; empty where it can. It has the C library compile it."""
    cdef regex_t expression
    cdef char reason[256]
    cdef bytes encoded = pattern.encode()
    cdef int code = regcomp(&expression, encoded, REG_EXTENDED | REG_NOSUB)
    if code == 0:
        regfree(&expression)
        return ""
    regerror(code, &expression, reason, sizeof(reason))
    return reason.decode(errors="replace")


def pattern_matches(str pattern, str topic):
    """Whether a regular expression is found in a topic's name, as librdkafka looks for it."""
    cdef regex_t expression
    cdef bytes encoded = pattern.encode(), name = topic.encode()
    if regcomp(&expression, encoded, REG_EXTENDED | REG_NOSUB) != 0:
        return False
    cdef bint found = regexec(&expression, name, 0, NULL, 0) == 0
    regfree(&expression)
    return found


cdef list notes_of(pf_kafka_notes *notes, const pf_rdkafka *api):
    """Take the notes: (kind, error code or log level, text, partitions of a rebalance), oldest first."""
    cdef pf_kafka_note *note = pf_kafka_notes_take(notes)
    cdef pf_kafka_note *following
    cdef int i
    taken = []
    while note != NULL:
        partitions = None
        if note.partitions != NULL:
            partitions = [
                (note.partitions.elems[i].topic.decode(), note.partitions.elems[i].partition)
                for i in range(note.partitions.cnt)
            ]
        text = note.text.decode(errors="replace") if note.text != NULL else ""
        taken.append((_KINDS[note.kind], note.err, text, partitions))
        following = note.next
        pf_kafka_note_free(api, note)
        note = following
    return taken

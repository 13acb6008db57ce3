"""The extension modules; everything else is in pyproject.toml.

Sources live in ext/, modules in pythia_fast/_ext/: setuptools places a module by its name, not by its
source. A ``.pxd`` that shares a cdef class lives in pythia_fast/_ext/, because Cython finds it by import name.

PYTHIA_FAST_DEBUG=1      bounds checks, -O0 -g, cython annotation pages
PYTHIA_FAST_OPTIMIZE=N   -ON, 0 to 3, for all modules, without debug information: with 1 it builds in half the time
PYTHIA_FAST_SANITIZE=1   AddressSanitizer and UndefinedBehaviorSanitizer (`make sanitize` runs the tests so)
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
DEBUG = os.environ.get("PYTHIA_FAST_DEBUG") == "1"
OPTIMIZE = os.environ.get("PYTHIA_FAST_OPTIMIZE")
SANITIZE = os.environ.get("PYTHIA_FAST_SANITIZE") == "1"

COMPILE = ["-std=c11", "-D_GNU_SOURCE", "-fvisibility=hidden"]
COMPILE += ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function"]
LINK: list[str] = []
if SANITIZE:
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    COMPILE += [*flags, "-Og", "-g1"]  # -O1 takes twice as long to compile, and checks no more
    LINK += flags
elif DEBUG:
    COMPILE += ["-O0", "-g"]
elif OPTIMIZE:
    COMPILE += [f"-O{int(OPTIMIZE)}", "-g0"]
else:
    COMPILE += ["-O2", "-g1"]

HEADERS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "ext").glob("*.[hi]*"))

# module -> further C sources. The module's own source is ext/<module>.pyx.
MODULES: dict[str, list[str]] = {
    "held_buffer": [],
    "arena_memory": [],
    "ring": [],
    "journal": [],
    "spare": [],
    "oldest": [],
    "gather": [],
    "intake": [],
    "source": [],
    "message_limit": [],
    "decoder": [],
    "raw_decoder": [],
    "memory_reader": [],
    "file_reader": [],
    "file_writer": [],
    "collecting_sink": [],
    "plan": [],
    "json_decoder": ["json_plan.c", "json_scalar.c", "json_avx2.c", "json_number.c"],
    "decoder_probe": [],
    "row_encoder": [],
    "message_records": [],
    "msgpack_decoder": [],
    "registry_decoder": [],
    "avro_decoder": [],
    "framed_decoder": [],
    "fixed_decoder": [],
    "batch_memory": [],
    "part_memory": [],
    "lanes": [],
    "token_bucket": [],
    "text_ops": [],
    "librdkafka": [],
    "kafka_client": [],
    "kafka_share_reader": ["kafka_share.c", "kafka_share_acks.c", "kafka_share_member.c", "kafka_notes.c"],
    "kafka_reader": ["kafka_source.c", "kafka_member.c", "kafka_notes.c"],
    "redis_reader": ["redis_source.c", "redis_fields.c", "resp.c"],
    "redis_publisher": ["redis_outbox.c", "resp.c"],
    "resp_probe": ["resp.c"],
    "arrow": [],
    "kafka_publisher": ["kafka_outbox.c", "kafka_notes.c"],
    "amqp_stream": [],
    "amqp_reader": ["amqp_source.c"],
    "amqp_publisher": [],
    "stream_reader": ["stream_source.c", "stream_chunks.c"],
    "stream_probe": [],
}

#: Their loops over rows and payload bytes gain from -O3; the others would only take a third longer to compile.
LOOPS = {
    "json_decoder",
    "msgpack_decoder",
    "avro_decoder",
    "fixed_decoder",
    "raw_decoder",
    "file_reader",
    "row_encoder",
}


def extension(name: str, c_sources: list[str]) -> Extension:
    return Extension(
        f"pythia_fast._ext.{name}",
        [f"ext/{name}.pyx", *(f"ext/{source}" for source in c_sources)],
        include_dirs=["ext"],
        depends=HEADERS,
        extra_compile_args=[flag if flag != "-O2" or name not in LOOPS else "-O3" for flag in COMPILE],
        extra_link_args=LINK,
        libraries=["m"],
    )


class CythonBuild(build_ext):
    """Makes the C code when it is about to be compiled; an sdist, or a question about the package, needs none."""

    def run(self) -> None:
        made = cythonize(
            self.extensions,
            build_dir="build/cython-debug" if DEBUG else "build/cython",
            nthreads=os.cpu_count() or 1,
            include_path=["ext", "."],
            annotate=DEBUG,
            force=DEBUG,
            compiler_directives={
                "language_level": "3",
                "boundscheck": DEBUG,
                "wraparound": False,
                "embedsignature": True,
                "freethreading_compatible": False,
            },
        )
        # setuptools has noted things about the extensions that it was given, so these stay.
        sources = {module.name: module.sources for module in made}
        for module in self.extensions:
            module.sources = sources[module.name]
        super().run()


setup(
    cmdclass={"build_ext": CythonBuild},
    options={"build_ext": {"parallel": os.cpu_count()}},
    ext_modules=[extension(name, sources) for name, sources in MODULES.items()],
)

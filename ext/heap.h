/* How glibc's heap treats what librdkafka frees.
 *
 * Every fetch allocates a buffer of up to some MiB, which is freed milliseconds later, in another thread.  By default
 * glibc gives the end of such a heap back to the kernel as soon as 128 KiB of it are free, and each page comes back
 * through a fault, cleared.  Let 64 MiB stay instead: about as much as librdkafka holds anyway
 * (queued.max.messages.kbytes and the fetches under way).  Figures: docs/decisions/kafka-reader.md.
 */
#ifndef PYTHIA_HEAP_H
#define PYTHIA_HEAP_H

#include <stdlib.h>

#ifdef __GLIBC__
#include <malloc.h>

/* Who tunes malloc by hand keeps the last word. */
static void pf_keep_freed_heap(void) {
    static const char *const own[] = {"GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (getenv(own[i])) return;
    mallopt(M_MMAP_THRESHOLD, 32 * 1024 * 1024); /* the largest; setting either turns glibc's own adjusting off */
    mallopt(M_TRIM_THRESHOLD, 64 * 1024 * 1024);
}
#else
static void pf_keep_freed_heap(void) {}
#endif

#endif

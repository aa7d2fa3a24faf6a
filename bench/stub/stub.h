/* The upstream stub: a stand-in for one engine, far cheaper than any proxy in front of it. */
#ifndef BENCH_STUB_H
#define BENCH_STUB_H

#include <stddef.h>
#include <stdint.h>

#include "../native/timers.h"

/* What a request asks for. The load generator writes it into the system message, the one place that every proxy passes
 * on (headers and other fields are dropped by some): `bench-n<chunks>-r<chunks a second>-t<microseconds to the first byte>-`. */
struct order {
    int stream, close;
    unsigned chunks, rate_per_s, ttft_us;
};

struct incoming {
    enum { INCOMPLETE, BROKEN, GET, POST } kind;
    size_t bytes; /* of the whole request, head and body */
    const char *path;
    struct order order;
};

struct incoming parse_request(const char *data, size_t length);

/* Each writes a piece of an answer to `out` and returns its length. Sizes and values vary from call to call, so a
 * proxy that remembers whole heads gains nothing. `out` holds OUT_MAX bytes. */
#define OUT_MAX 4096
size_t render_completion(char *out, uint64_t *rng);
size_t render_stream_head(char *out, uint64_t *rng);
size_t render_chunk(char *out, uint64_t *rng, unsigned id, int first, int last);
size_t render_get(char *out, const char *path, unsigned long accepted); /* accepted: connections so far */

#endif

/* The load generator: what its parts know of each other. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stddef.h>
#include <stdint.h>

/* What is asked of the upstream in every request; headers, prompt and body size vary. */
struct plan {
    int port, stream;
    unsigned chunks, rate_per_s, ttft_us, prompt_min, prompt_max;
};

#define REQUEST_MAX 16384
size_t render_request(char *out, const struct plan *plan, uint64_t *rng);

/* Reads one HTTP/1.1 response, fed as it arrives. */
struct response {
    enum { HEAD, FIXED, UNTIL_CLOSE, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER } state;
    int status, keep_alive, head_length, newlines;
    int64_t left, body_at_ns; /* body_at_ns: first byte of the body, 0 before */
    unsigned events;          /* server-sent events seen whole, [DONE] too */
    char head[4096];
};

enum verdict { MORE, COMPLETE, MALFORMED };
void response_reset(struct response *r);
enum verdict response_feed(struct response *r, const char *data, size_t length, int64_t now);

/* Samples, and their percentiles when all is over. */
struct series {
    float *values;
    size_t count, capacity;
};
void series_add(struct series *s, double value);
void series_print(struct series *s, const char *name); /* `"name":{"n":..,"p50":..,"p99":..,"max":..}` */

struct client {
    /* per connection */
    int fd;
    enum { UNCONNECTED, CONNECTING, READY } link;
    unsigned answered; /* on this connection */
    /* per request */
    int busy;
    int64_t due_ns, event_ns;
    size_t out_length, out_sent;
    struct response response;
    char out[REQUEST_MAX];
};

struct totals {
    unsigned long started, answered, ok, events, reads, reconnects;
    unsigned long refused, cut, malformed, bad_status, short_streams;
    struct series latency_us, ttft_us, gap_us;
};

struct run {
    struct plan plan;
    struct totals totals;
    uint64_t rng;
    int epoll;
    unsigned in_flight;
    void (*finished)(struct run *run, struct client *client, int ok);
    void *mode;
};

/* Starts a request on `client`; its latency counts from `due_ns`. */
void client_start(struct run *run, struct client *client, int64_t due_ns);
void client_event(struct run *run, struct client *client, unsigned events);

#endif

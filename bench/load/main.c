/* load MODE --port P ...: one thread that plays many clients of 127.0.0.1:P and prints what it saw as JSON lines.
 *
 *   closed  each of --clients sends the next request as soon as the last one is answered (--count or --seconds)
 *   open    --per-second requests a second, however fast the answers come (--count)
 *   burst   --clients connect in the same moment, one request each
 *   hold    --clients open a stream each, spread over --ramp-ms, and hold it; prints {"event":"open"} once all have
 *           their first event, {"event":"mark",...} with counters for each line read from stdin, and ends when stdin
 *           is closed
 *
 * Every run ends at the latest after --limit seconds; what is unanswered then is counted as such. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "../native/loop.h"
#include "load.h"

enum mode { CLOSED, OPEN, BURST, HOLD };

struct state {
    enum mode mode;
    unsigned clients, next_client;
    double per_second, seconds, ramp_ms, limit_s;
    unsigned long count;
    int64_t begin_ns, due_ns;
    struct client *all, **idle;
    unsigned idle_first, idle_count;
    int reported_open, over;
};

static void rest(struct state *s, struct client *c) {
    s->idle[(s->idle_first + s->idle_count++) % s->clients] = c;
}

/* A client of the closed loop that fails gives up, so that a dead proxy ends the run instead of spinning it. */
static void finished(struct run *run, struct client *c, int ok) {
    struct state *s = run->mode;
    int64_t now = now_ns();
    int more = s->count ? run->totals.started < s->count : (double)(now - s->begin_ns) < s->seconds * 1e9;
    if (s->mode == CLOSED && ok && more) client_start(run, c, now);
    else rest(s, c);
}

static int64_t next_gap(struct run *run, struct state *s) {
    if (s->mode == BURST || s->mode == CLOSED) return 0;
    if (s->mode == HOLD) return (int64_t)(s->ramp_ms * 1e6 / s->clients);
    return (int64_t)(1e9 / s->per_second * (rng_between(&run->rng, 500, 1500) / 1000.0)); /* not in lock step */
}

/* Starts what is due. The return value is the time until the next start, or -1. */
static int64_t start_due(struct run *run, struct state *s) {
    unsigned long wanted = s->mode == OPEN ? s->count : s->clients;
    while (run->totals.started < wanted && s->idle_count) {
        int64_t wait = s->due_ns - now_ns();
        if (wait > 0) return wait;
        struct client *c = s->idle[s->idle_first];
        s->idle_first = (s->idle_first + 1) % s->clients;
        s->idle_count--;
        int64_t due = s->due_ns;
        s->due_ns += next_gap(run, s);
        client_start(run, c, s->mode == OPEN ? due : now_ns());
    }
    return -1;
}

static void print_totals(struct run *run, const char *event) {
    struct state *s = run->mode;
    struct totals *t = &run->totals;
    double elapsed = (double)(now_ns() - s->begin_ns) / 1e9;
    printf("{\"event\":\"%s\",\"elapsed_s\":%.6f,\"started\":%lu,\"answered\":%lu,\"ok\":%lu,\"unanswered\":%u,"
           "\"refused\":%lu,\"cut\":%lu,\"malformed\":%lu,\"bad_status\":%lu,\"short_streams\":%lu,"
           "\"reconnects\":%lu,\"events\":%lu,\"reads\":%lu,",
           event, elapsed, t->started, t->answered, t->ok, run->in_flight, t->refused, t->cut, t->malformed,
           t->bad_status, t->short_streams, t->reconnects, t->events, t->reads);
    series_print(&t->latency_us, "latency_us");
    printf(",");
    series_print(&t->ttft_us, "ttft_us");
    printf(",");
    series_print(&t->gap_us, "gap_us");
    printf("}\n");
    fflush(stdout);
}

static void hold_control(struct run *run) {
    struct state *s = run->mode;
    char line[64];
    ssize_t n = read(0, line, sizeof line);
    if (n <= 0) {
        s->over = 1;
        return;
    }
    print_totals(run, "mark");
    run->totals.gap_us.count = 0; /* the next mark speaks of the time since this one */
}

static void loop(struct run *run) {
    struct state *s = run->mode;
    struct epoll_event events[256], control = {.events = EPOLLIN, .data.ptr = NULL};
    if (s->mode == HOLD) epoll_ctl(run->epoll, EPOLL_CTL_ADD, 0, &control);
    int64_t limit = s->begin_ns + (int64_t)(s->limit_s * 1e9);
    while (!s->over) {
        int64_t wait = start_due(run, s), left = limit - now_ns();
        if (left <= 0) break;
        if (wait < 0 && run->in_flight == 0 && s->mode != HOLD) break;
        int n = wait_events(run->epoll, events, 256, wait >= 0 && wait < left ? wait : left);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) client_event(run, events[i].data.ptr, events[i].events);
            else hold_control(run);
        }
        if (s->mode == HOLD && !s->reported_open && run->totals.ttft_us.count == s->clients) {
            s->reported_open = 1;
            print_totals(run, "open");
        }
    }
}

static double option(const char *name, int argc, char **argv, double otherwise) {
    for (int i = 2; i + 1 < argc; i++) {
        if (strcmp(argv[i], name) == 0) return atof(argv[i + 1]);
    }
    return otherwise;
}

int main(int argc, char **argv) {
    static const char *const MODES[] = {"closed", "open", "burst", "hold"};
    struct state s = {0};
    unsigned mode = 0;
    while (mode < 4 && (argc < 2 || strcmp(argv[1], MODES[mode]))) mode++;
    if (mode == 4) return fprintf(stderr, "usage: load closed|open|burst|hold --port P ...\n"), 2;
    s.mode = (enum mode)mode;
    s.clients = (unsigned)option("--clients", argc, argv, 32);
    s.per_second = option("--per-second", argc, argv, 1000);
    s.seconds = option("--seconds", argc, argv, 1);
    s.count = (unsigned long)option("--count", argc, argv, 0);
    s.ramp_ms = option("--ramp-ms", argc, argv, 500);
    s.limit_s = option("--limit", argc, argv, 30);
    struct run run = {.finished = finished, .mode = &s};
    run.plan.port = (int)option("--port", argc, argv, 0);
    run.plan.stream = (int)option("--stream", argc, argv, s.mode == HOLD);
    run.plan.chunks = (unsigned)option("--chunks", argc, argv, 1);
    run.plan.rate_per_s = (unsigned)option("--chunk-rate", argc, argv, 0);
    run.plan.ttft_us = (unsigned)option("--ttft-us", argc, argv, 0);
    run.plan.prompt_min = (unsigned)option("--prompt-min", argc, argv, 100);
    run.plan.prompt_max = (unsigned)option("--prompt-max", argc, argv, 2000);
    run.rng = (uint64_t)option("--seed", argc, argv, 1) * 2654435761u + 1;
    run.epoll = epoll_create1(EPOLL_CLOEXEC);

    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    s.all = calloc(s.clients, sizeof *s.all);
    s.idle = calloc(s.clients, sizeof *s.idle);
    if (!s.all || !s.idle || s.clients == 0 || run.plan.prompt_max > 10000) return 2;
    for (unsigned i = 0; i < s.clients; i++) {
        s.all[i].fd = -1;
        rest(&s, &s.all[i]);
    }
    s.begin_ns = s.due_ns = now_ns();
    loop(&run);
    print_totals(&run, "end");
    return 0;
}

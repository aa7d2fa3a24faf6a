/* One thread, one epoll loop: accepts, reads requests, answers at once or as a paced stream, one send per chunk.
 * Prints `port N` when it listens (127.0.0.1 only) and ends with SIGTERM. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "../native/loop.h"
#include "stub.h"

#define IN_MAX (1 << 20)
#define OUT_PENDING_MAX (1 << 20)

struct conn {
    /* per connection */
    int fd, writable_wanted;
    char *in, *out;
    size_t in_length, in_capacity, out_length, out_capacity;
    /* per request */
    struct timer timer;
    struct order order;
    int busy;
    unsigned sent, id;
};

static struct timers timers;
static uint64_t rng = 0x9E3779B97F4A7C15ULL;
static int epoll;
static unsigned long accepted;

static void conn_close(struct conn *c) {
    timers_clear(&timers, &c->timer);
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

static void watch(struct conn *c, int writable) {
    struct epoll_event event = {.events = writable ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
    c->writable_wanted = writable;
}

/* 0 when the peer is gone. What the socket does not take now waits in `out`. */
static int conn_send(struct conn *c, const char *data, size_t length) {
    ssize_t n = 0;
    if (c->out_length == 0) {
        n = send(c->fd, data, length, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) return 0;
        if (n < 0) n = 0;
    }
    size_t rest = length - (size_t)n;
    if (rest == 0) return 1;
    if (c->out_length + rest > OUT_PENDING_MAX) return 0;
    if (c->out_length + rest > c->out_capacity) {
        c->out_capacity = (c->out_length + rest) * 2;
        c->out = realloc(c->out, c->out_capacity);
        if (!c->out) abort();
    }
    memcpy(c->out + c->out_length, data + n, rest);
    c->out_length += rest;
    if (!c->writable_wanted) watch(c, 1);
    return 1;
}

static int conn_flush(struct conn *c) {
    ssize_t n = send(c->fd, c->out, c->out_length, MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN;
    c->out_length -= (size_t)n;
    memmove(c->out, c->out + n, c->out_length);
    if (c->out_length == 0) watch(c, 0);
    return 1;
}

/* The next piece of the answer is due. 0 when the connection must close. */
static int conn_due(struct conn *c) {
    char piece[OUT_MAX];
    if (!c->order.stream) {
        c->busy = 0;
        return conn_send(c, piece, render_completion(piece, &rng)) && !c->order.close;
    }
    int last = c->sent + 1 >= c->order.chunks;
    if (!conn_send(c, piece, render_chunk(piece, &rng, c->id, c->sent == 0, last))) return 0;
    c->sent++;
    if (!last) {
        int64_t gap_ns = c->order.rate_per_s ? 1000000000 / (int64_t)c->order.rate_per_s : 0;
        timers_set(&timers, &c->timer, c->timer.at_ns + gap_ns);
        return 1;
    }
    c->busy = 0;
    return !c->order.close;
}

static int conn_begin(struct conn *c, struct incoming *request) {
    char piece[OUT_MAX];
    if (request->kind == BROKEN) return 0;
    if (request->kind == GET) {
        return conn_send(c, piece, render_get(piece, request->path, accepted)) && !request->order.close;
    }
    c->order = request->order;
    c->busy = 1;
    c->sent = 0;
    c->id = (unsigned)rng_next(&rng);
    /* As engines do: the head of a stream goes out at once, the first token when the prompt has been read. */
    if (c->order.stream && !conn_send(c, piece, render_stream_head(piece, &rng))) return 0;
    c->timer.at_ns = now_ns() + (int64_t)c->order.ttft_us * 1000;
    if (c->order.ttft_us == 0) return conn_due(c);
    timers_set(&timers, &c->timer, c->timer.at_ns);
    return 1;
}

static int conn_read(struct conn *c) {
    if (c->in_length == c->in_capacity) {
        if (c->in_capacity >= IN_MAX) return 0;
        c->in_capacity = c->in_capacity ? c->in_capacity * 2 : 8192;
        c->in = realloc(c->in, c->in_capacity);
        if (!c->in) abort();
    }
    ssize_t n = recv(c->fd, c->in + c->in_length, c->in_capacity - c->in_length, 0);
    if (n <= 0) return n < 0 && errno == EAGAIN;
    c->in_length += (size_t)n;
    while (c->in_length && !c->busy) {
        struct incoming request = parse_request(c->in, c->in_length);
        if (request.kind == INCOMPLETE) break;
        if (!conn_begin(c, &request)) return 0;
        c->in_length -= request.bytes;
        memmove(c->in, c->in + request.bytes, c->in_length);
    }
    return 1;
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = calloc(1, sizeof *c);
        if (!c) abort();
        c->fd = fd;
        accepted++;
        c->timer.owner = c;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listen_somewhere(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) || listen(fd, 4096)) return -1;
    getsockname(fd, (struct sockaddr *)&address, &length);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_somewhere();
    struct epoll_event events[256], event = {.events = EPOLLIN, .data.ptr = NULL};
    if (listener < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event)) return perror("listen"), 1;
    for (;;) {
        int64_t now = now_ns();
        while (timers.count && timers.heap[1]->at_ns <= now) {
            struct conn *c = timers.heap[1]->owner;
            timers_clear(&timers, &c->timer);
            if (!conn_due(c)) conn_close(c);
        }
        int64_t wait_ns = timers.count ? timers.heap[1]->at_ns - now_ns() : -1;
        int n = wait_events(epoll, events, 256, timers.count && wait_ns < 0 ? 0 : wait_ns);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c) {
                accept_all(listener);
                continue;
            }
            int alive = !(events[i].events & EPOLLOUT) || conn_flush(c);
            if (alive && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) alive = conn_read(c);
            if (!alive) conn_close(c);
        }
    }
}

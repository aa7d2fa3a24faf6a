/* One client connection: connect, send, read, count. Connections are kept alive and opened again when closed. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "../native/loop.h"
#include "load.h"

static void watch(struct run *run, struct client *c, int operation, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(run->epoll, operation, c->fd, &event);
}

static void client_close(struct client *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->link = UNCONNECTED;
    c->answered = 0;
}

static void finish(struct run *run, struct client *c, unsigned long *failure) {
    c->busy = 0;
    run->in_flight--;
    if (failure) {
        ++*failure;
        client_close(c);
    } else if (!c->response.keep_alive) {
        client_close(c);
    }
    run->finished(run, c, failure == NULL);
}

static void answered(struct run *run, struct client *c, int64_t now) {
    struct totals *t = &run->totals;
    t->answered++;
    c->answered++;
    series_add(&t->latency_us, (double)(now - c->due_ns) / 1e3);
    if (c->response.status != 200) {
        finish(run, c, &t->bad_status);
    } else if (run->plan.stream && c->response.events < run->plan.chunks + 1) { /* + 1: [DONE]; LiteLLM adds one */
        finish(run, c, &t->short_streams);
    } else {
        t->ok++;
        finish(run, c, NULL);
    }
}

static void connect_client(struct run *run, struct client *c) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)run->plan.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd >= 0) {
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        c->link = CONNECTING;
        watch(run, c, EPOLL_CTL_ADD, EPOLLOUT);
        if (connect(c->fd, (struct sockaddr *)&address, sizeof address) == 0 || errno == EINPROGRESS) return;
    }
    finish(run, c, &run->totals.refused);
}

static void send_request(struct run *run, struct client *c) {
    ssize_t n = send(c->fd, c->out + c->out_sent, c->out_length - c->out_sent, MSG_NOSIGNAL);
    if (n > 0) c->out_sent += (size_t)n;
    if (c->out_sent < c->out_length) watch(run, c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
}

void client_start(struct run *run, struct client *c, int64_t due_ns) {
    c->busy = 1;
    c->due_ns = due_ns;
    c->event_ns = 0;
    c->out_sent = 0;
    c->out_length = render_request(c->out, &run->plan, &run->rng);
    response_reset(&c->response);
    run->in_flight++;
    run->totals.started++;
    if (c->link == READY) {
        send_request(run, c);
    } else {
        connect_client(run, c);
    }
}

/* A kept-alive connection that the proxy closed while the request was on its way: allowed, once more elsewhere. */
static void connection_lost(struct run *run, struct client *c, int64_t now) {
    if (!c->busy) {
        client_close(c);
    } else if (c->response.state == UNTIL_CLOSE) {
        c->response.keep_alive = 0;
        answered(run, c, now);
    } else if (c->answered && c->response.status == 0 && c->response.head_length == 0) {
        run->totals.reconnects++;
        client_close(c);
        c->out_sent = 0;
        connect_client(run, c);
    } else {
        finish(run, c, &run->totals.cut);
    }
}

static void client_read(struct run *run, struct client *c) {
    static char buffer[65536];
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN) return;
    int64_t now = now_ns();
    if (n <= 0 || !c->busy) {
        connection_lost(run, c, now);
        return;
    }
    struct response *r = &c->response;
    unsigned events = r->events;
    enum verdict verdict = response_feed(r, buffer, (size_t)n, now);
    run->totals.reads++;
    run->totals.events += r->events - events;
    if (r->events > events) {
        if (events == 0) series_add(&run->totals.ttft_us, (double)(now - c->due_ns) / 1e3);
        else series_add(&run->totals.gap_us, (double)(now - c->event_ns) / 1e3);
        c->event_ns = now;
    }
    if (verdict == COMPLETE) answered(run, c, now);
    else if (verdict == MALFORMED) finish(run, c, &run->totals.malformed);
}

void client_event(struct run *run, struct client *c, unsigned events) {
    if (c->link == CONNECTING && events) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error) {
            finish(run, c, &run->totals.refused);
            return;
        }
        c->link = READY;
        watch(run, c, EPOLL_CTL_MOD, EPOLLIN);
        send_request(run, c);
        return;
    }
    if (events & EPOLLOUT) {
        watch(run, c, EPOLL_CTL_MOD, EPOLLIN);
        send_request(run, c);
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) client_read(run, c);
}

/* Reading a request: only as much of HTTP as the proxies under test really send. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "stub.h"

static int header_is(const char *line, size_t length, const char *name) {
    size_t n = strlen(name);
    return length > n && line[n] == ':' && strncasecmp(line, name, n) == 0;
}

static unsigned number_after(const char *text, const char *end, const char *mark) {
    const char *at = memmem(text, (size_t)(end - text), mark, strlen(mark));
    return at ? (unsigned)strtoul(at + strlen(mark), NULL, 10) : 0;
}

static void read_order(const char *body, size_t length, struct order *order) {
    const char *end = body + length;
    const char *mark = memmem(body, length, "bench-n", 7);
    if (mark) {
        const char *stop = mark + 64 < end ? mark + 64 : end;
        order->chunks = number_after(mark, stop, "-n");
        order->rate_per_s = number_after(mark, stop, "-r");
        order->ttft_us = number_after(mark, stop, "-t");
    }
    const char *stream = memmem(body, length, "\"stream\"", 8);
    if (stream) {
        stream += 8;
        while (stream < end && (*stream == ':' || *stream == ' ')) stream++;
        order->stream = end - stream >= 4 && memcmp(stream, "true", 4) == 0;
    }
}

struct incoming parse_request(const char *data, size_t length) {
    struct incoming result = {.kind = INCOMPLETE};
    const char *head_end = memmem(data, length, "\r\n\r\n", 4);
    if (!head_end) return result;
    size_t head = (size_t)(head_end - data) + 4, body = 0;
    int chunked = 0;
    const char *line = memmem(data, head, "\r\n", 2);
    while (line && line < head_end) {
        line += 2;
        const char *next = memmem(line, (size_t)(data + head - line), "\r\n", 2);
        size_t n = (size_t)(next - line);
        if (header_is(line, n, "content-length")) body = strtoul(line + 15, NULL, 10);
        if (header_is(line, n, "transfer-encoding")) chunked = 1;
        if (header_is(line, n, "connection") && memmem(line, n, "close", 5)) result.order.close = 1;
        line = next;
    }
    if (chunked) {
        /* No benchmark body holds this text itself, so looking for it is enough. */
        const char *last = memmem(data + head, length - head, "0\r\n\r\n", 5);
        if (!last) return result;
        body = (size_t)(last - data) + 5 - head;
    }
    if (length < head + body) return result;
    result.bytes = head + body;
    const char *space = memchr(data, ' ', head);
    result.path = space ? space + 1 : data;
    result.kind = memcmp(data, "POST", 4) == 0 ? POST : memcmp(data, "GET", 3) == 0 ? GET : BROKEN;
    if (result.kind == POST) read_order(data + head, body, &result.order);
    return result;
}

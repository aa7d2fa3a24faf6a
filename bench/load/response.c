/* Reading responses, whatever framing the proxy chose, and counting the server-sent events in them. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "load.h"

void response_reset(struct response *r) {
    memset(r, 0, offsetof(struct response, head));
    r->keep_alive = 1;
}

static enum verdict read_head(struct response *r) {
    r->status = r->head_length > 12 ? atoi(r->head + 9) : 0;
    if (memcmp(r->head, "HTTP/1.", 7) || r->status < 100) return MALFORMED;
    if (r->head[7] == '0') r->keep_alive = 0;
    r->state = UNTIL_CLOSE;
    for (char *line = r->head; (line = strstr(line, "\r\n")) != NULL;) {
        line += 2;
        if (strncasecmp(line, "content-length:", 15) == 0) {
            r->state = FIXED;
            r->left = atoll(line + 15);
        } else if (strncasecmp(line, "transfer-encoding:", 18) == 0) {
            r->state = CHUNK_SIZE;
            r->left = 0;
        } else if (strncasecmp(line, "connection: close", 17) == 0) {
            r->keep_alive = 0;
        }
    }
    return r->state == FIXED && r->left == 0 ? COMPLETE : MORE;
}

/* An event ends with an empty line; the two newlines may come in different pieces. */
static void count_events(struct response *r, const char *data, size_t length) {
    for (const char *end = data + length; data < end;) {
        if (*data == '\n') {
            if (++r->newlines == 2) r->events++, r->newlines = 0;
            data++;
            continue;
        }
        if (*data == '\r') { /* some servers end lines with CR LF */
            data++;
            continue;
        }
        r->newlines = 0;
        data = memchr(data, '\n', (size_t)(end - data));
        if (!data) break;
    }
}

static size_t take_head(struct response *r, const char *data, size_t length, enum verdict *verdict) {
    size_t room = sizeof r->head - 1 - (size_t)r->head_length, before = (size_t)r->head_length;
    size_t n = length < room ? length : room;
    memcpy(r->head + before, data, n);
    r->head[before + n] = 0;
    char *end = memmem(r->head, before + n, "\r\n\r\n", 4);
    if (!end) {
        r->head_length += (int)n;
        *verdict = n < length ? MALFORMED : MORE;
        return length;
    }
    end[2] = 0;
    r->head_length = (int)(end + 4 - r->head);
    *verdict = read_head(r);
    return (size_t)r->head_length - before;
}

static size_t take_body(struct response *r, const char *data, size_t length, int64_t now) {
    size_t n = r->state == UNTIL_CLOSE || (int64_t)length < r->left ? length : (size_t)r->left;
    if (r->body_at_ns == 0) r->body_at_ns = now;
    count_events(r, data, n);
    if (r->state != UNTIL_CLOSE) r->left -= (int64_t)n;
    return n;
}

enum verdict response_feed(struct response *r, const char *data, size_t length, int64_t now) {
    enum verdict verdict = MORE;
    for (size_t used; length && verdict == MORE; data += used, length -= used) {
        used = 1;
        switch (r->state) {
        case HEAD:
            used = take_head(r, data, length, &verdict);
            break;
        case FIXED:
        case UNTIL_CLOSE:
            used = take_body(r, data, length, now);
            if (r->state == FIXED && r->left == 0) verdict = COMPLETE;
            break;
        case CHUNK_SIZE: {
            char c = *data | 0x20;
            if (c >= '0' && c <= '9') r->left = r->left * 16 + (c - '0');
            else if (c >= 'a' && c <= 'f') r->left = r->left * 16 + (c - 'a') + 10;
            if (*data == '\n') r->state = r->left ? CHUNK_DATA : TRAILER, r->head_length = 0;
            break;
        }
        case CHUNK_DATA:
            used = take_body(r, data, length, now);
            if (r->left == 0) r->state = CHUNK_END;
            break;
        case CHUNK_END:
            if (*data == '\n') r->state = CHUNK_SIZE;
            break;
        case TRAILER: /* complete at the first empty line; head_length counts the line's bytes here */
            if (*data == '\n') {
                if (r->head_length == 0) verdict = COMPLETE;
                r->head_length = 0;
            } else if (*data != '\r') {
                r->head_length++;
            }
            break;
        }
    }
    return verdict == COMPLETE && length ? MALFORMED : verdict; /* surplus bytes: nothing was pipelined */
}

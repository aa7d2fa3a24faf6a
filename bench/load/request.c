/* Requests as an OpenAI SDK sends them, no two alike. */
#include <stdio.h>
#include <string.h>

#include "../native/loop.h"
#include "load.h"

static const char PROSE[] =
    "Please read the following report carefully and tell me in three sentences what it says, which of its claims you "
    "doubt, and what you would measure to find out. The fleet had been quiet since the morning; by noon the queue in "
    "front of the largest model had doubled, and the operators saw first answers arrive after nine seconds. One server "
    "had been restarted and was still loading its weights, another one answered its health check although it was "
    "asleep, and a third one took all the traffic that the two others did not. ";
static const char *const AGENTS[] = {"OpenAI/Python 1.99.1", "AsyncOpenAI/Python 2.3.0", "OpenAI/JS 6.1.0",
                                     "curl/8.5.0", "python-httpx/0.28.1", "LangChain/0.3 (linux; x86_64) requests"};

static size_t render_body(char *out, const struct plan *plan, uint64_t *rng) {
    unsigned left = rng_between(rng, plan->prompt_min, plan->prompt_max);
    char *at = out;
    at += sprintf(at,
                  "{\"model\":\"bench\",\"messages\":[{\"role\":\"system\",\"content\":\"bench-n%u-r%u-t%u- You are a "
                  "careful assistant.\"},{\"role\":\"user\",\"content\":\"%llx ",
                  plan->chunks, plan->rate_per_s, plan->ttft_us, (unsigned long long)rng_next(rng));
    while (left) {
        unsigned piece = left < sizeof PROSE - 1 ? left : (unsigned)(sizeof PROSE - 1);
        memcpy(at, PROSE, piece);
        at += piece;
        left -= piece;
    }
    at += sprintf(at, "\"}],\"temperature\":0.%u,\"max_tokens\":%u,\"stream\":%s,\"user\":\"client-%u\"}",
                  rng_between(rng, 1, 9), rng_between(rng, 16, 2048), plan->stream ? "true" : "false",
                  rng_between(rng, 0, 0xffff));
    return (size_t)(at - out);
}

size_t render_request(char *out, const struct plan *plan, uint64_t *rng) {
    char body[REQUEST_MAX - 2048];
    size_t length = render_body(body, plan, rng);
    char *at = out;
    at += sprintf(at,
                  "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: %s\r\nAccept: %s\r\n"
                  "Authorization: Bearer sk-%016llx%08x\r\nContent-Type: application/json\r\nX-Request-Id: %016llx\r\n"
                  "X-Stainless-Retry-Count: %u\r\n",
                  plan->port, AGENTS[rng_between(rng, 0, sizeof AGENTS / sizeof *AGENTS - 1)],
                  plan->stream ? "text/event-stream" : "application/json", (unsigned long long)rng_next(rng),
                  rng_between(rng, 0, 0xffffff), (unsigned long long)rng_next(rng), rng_between(rng, 0, 2));
    if (rng_between(rng, 0, 1)) {
        at += sprintf(at, "X-Stainless-Lang: python\r\nX-Stainless-Read-Timeout: %u\r\n", rng_between(rng, 10, 900));
    }
    if (rng_between(rng, 0, 3) == 0) {
        at += sprintf(at, "traceparent: 00-%016llx%016llx-%016llx-01\r\n", (unsigned long long)rng_next(rng),
                      (unsigned long long)rng_next(rng), (unsigned long long)rng_next(rng));
    }
    at += sprintf(at, "Content-Length: %zu\r\n\r\n", length);
    memcpy(at, body, length);
    return (size_t)(at - out) + length;
}

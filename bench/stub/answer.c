/* Writing answers that look like an engine's. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "../native/loop.h"
#include "stub.h"

static const char FILLER[] =
    "The scheduler places each request on the server that has the least work left, and keeps it there until the "
    "last token has been sent. A server that stops answering is taken out at once; what it was doing is started "
    "again elsewhere, as long as no part of the answer has reached the client. When many clients arrive in the same "
    "moment they wait in the order in which they came, and the wait is bounded so that nobody waits in vain. ";
static const char *const WORDS[] = {" the", " a", " token", " proxy", "ing", ",", " under", " load", ".", " answers"};

static const char *date_now(void) {
    static char text[64];
    static time_t at;
    time_t now = time(NULL);
    if (now != at) {
        struct tm parts;
        gmtime_r(&now, &parts);
        strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
        at = now;
    }
    return text;
}

size_t render_completion(char *out, uint64_t *rng) {
    char body[2048];
    unsigned words = rng_between(rng, 100, 395);
    unsigned prompt = rng_between(rng, 20, 900);
    int n = snprintf(
        body, sizeof body,
        "{\"id\":\"chatcmpl-%016llx\",\"object\":\"chat.completion\",\"created\":%ld,\"model\":\"bench\",\"choices\":"
        "[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%.*s\",\"tool_calls\":[]},\"logprobs\":null,"
        "\"finish_reason\":\"stop\",\"stop_reason\":null}],\"usage\":{\"prompt_tokens\":%u,\"total_tokens\":%u,"
        "\"completion_tokens\":%u,\"prompt_tokens_details\":null},\"prompt_logprobs\":null}",
        (unsigned long long)rng_next(rng), (long)time(NULL), (int)words, FILLER, prompt, prompt + words / 4, words / 4);
    return (size_t)snprintf(out, OUT_MAX,
                            "HTTP/1.1 200 OK\r\ndate: %s\r\nserver: uvicorn\r\ncontent-length: %d\r\n"
                            "content-type: application/json\r\nx-request-id: %016llx\r\nx-queue-ms: %u\r\n\r\n%s",
                            date_now(), n, (unsigned long long)rng_next(rng), rng_between(rng, 0, 400), body);
}

size_t render_stream_head(char *out, uint64_t *rng) {
    return (size_t)snprintf(out, OUT_MAX,
                            "HTTP/1.1 200 OK\r\ndate: %s\r\nserver: uvicorn\r\n"
                            "content-type: text/event-stream; charset=utf-8\r\nx-request-id: %016llx\r\n"
                            "x-queue-ms: %u\r\ntransfer-encoding: chunked\r\n\r\n",
                            date_now(), (unsigned long long)rng_next(rng), rng_between(rng, 0, 400));
}

size_t render_chunk(char *out, uint64_t *rng, unsigned id, int first, int last) {
    char event[512];
    const char *word = WORDS[rng_between(rng, 0, sizeof WORDS / sizeof *WORDS - 1)];
    int n = snprintf(event, sizeof event,
                     "data: {\"id\":\"chatcmpl-%08x\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
                     "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{%s\"content\":\"%s\"},"
                     "\"logprobs\":null,\"finish_reason\":%s}]}\n\n",
                     id, first ? "\"role\":\"assistant\"," : "", word, last ? "\"stop\"" : "null");
    return (size_t)snprintf(out, OUT_MAX, "%x\r\n%s\r\n%s", n, event,
                            last ? "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n" : "");
}

size_t render_get(char *out, const char *path, unsigned long accepted) {
    char metrics[1024];
    const char *body = NULL, *type = "application/json";
    if (strncmp(path, "/health", 7) == 0) {
        body = "";
    } else if (strncmp(path, "/v1/models", 10) == 0) {
        body = "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"owned_by\":\"bench\"}]}";
    } else if (strncmp(path, "/metrics", 8) == 0) {
        type = "text/plain";
        snprintf(metrics, sizeof metrics,
                 "vllm:num_requests_running{engine=\"0\",model_name=\"bench\"} 0\n"
                 "vllm:num_requests_waiting{engine=\"0\",model_name=\"bench\"} 0\n"
                 "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"bench\"} 0\n"
                 "bench_connections_accepted_total %lu\n",
                 accepted);
        body = metrics;
    }
    return (size_t)snprintf(out, OUT_MAX,
                            "HTTP/1.1 %s\r\nserver: uvicorn\r\ncontent-type: %s\r\ncontent-length: %zu\r\n\r\n%s",
                            body ? "200 OK" : "404 Not Found", type, body ? strlen(body) : 2, body ? body : "{}");
}

/* A binary heap of deadlines. A timer is embedded in its owner and knows its own place, so it can be taken out. */
#ifndef BENCH_TIMERS_H
#define BENCH_TIMERS_H

#include <stdint.h>
#include <stdlib.h>

struct timer {
    int64_t at_ns;
    int slot; /* 0: not in the heap */
    void *owner;
};

struct timers {
    struct timer **heap; /* heap[1] is the earliest */
    int count, capacity;
};

static inline void timers_put(struct timers *t, int slot, struct timer *item) {
    t->heap[slot] = item;
    item->slot = slot;
}

static inline void timers_sift(struct timers *t, int slot, struct timer *item) {
    while (slot > 1 && t->heap[slot / 2]->at_ns > item->at_ns) {
        timers_put(t, slot, t->heap[slot / 2]);
        slot /= 2;
    }
    for (int child; (child = slot * 2) <= t->count; slot = child) {
        if (child < t->count && t->heap[child + 1]->at_ns < t->heap[child]->at_ns) child++;
        if (t->heap[child]->at_ns >= item->at_ns) break;
        timers_put(t, slot, t->heap[child]);
    }
    timers_put(t, slot, item);
}

static inline void timers_set(struct timers *t, struct timer *item, int64_t at_ns) {
    item->at_ns = at_ns;
    if (item->slot == 0) {
        if (t->count + 2 > t->capacity) {
            t->capacity = t->capacity ? t->capacity * 2 : 1024;
            t->heap = realloc(t->heap, sizeof(*t->heap) * (size_t)t->capacity);
            if (!t->heap) abort();
        }
        item->slot = ++t->count;
        t->heap[item->slot] = item;
    }
    timers_sift(t, item->slot, item);
}

static inline void timers_clear(struct timers *t, struct timer *item) {
    int slot = item->slot;
    if (slot == 0) return;
    item->slot = 0;
    struct timer *last = t->heap[t->count--];
    if (last != item) timers_sift(t, slot, last);
}

#endif

/* Samples and percentiles. */
#include <stdio.h>
#include <stdlib.h>

#include "load.h"

void series_add(struct series *s, double value) {
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? s->capacity * 2 : 4096;
        s->values = realloc(s->values, s->capacity * sizeof *s->values);
        if (!s->values) abort();
    }
    s->values[s->count++] = (float)value;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

void series_print(struct series *s, const char *name) {
    if (s->count == 0) {
        printf("\"%s\":{\"n\":0}", name);
        return;
    }
    qsort(s->values, s->count, sizeof *s->values, ascending);
    printf("\"%s\":{\"n\":%zu,\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f}", name, s->count, s->values[s->count / 2],
           s->values[s->count * 99 / 100], s->values[s->count - 1]);
}

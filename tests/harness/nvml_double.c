/* NVIDIA's management library as pynvml loads it, with two GPUs whose figures a test sets: built by `nvml.py`.
 *
 * Only what llmproxy calls, with the signatures and error codes of NVML's API. -DOLD_DRIVER leaves out what old drivers
 * do not have. `double_*` are the test's; everything else is what the real library exports.
 */
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    DRIVER_NOT_LOADED = 9,
    GPU_IS_LOST = 15,
};

typedef struct {
    unsigned int gpu, memory;
} Utilization;
typedef struct {
    unsigned long long total, free, used;
} Memory;
typedef struct {
    const char *uuid, *name;
    volatile int lost, forgotten;
    volatile int ecc;
    volatile int mig;
    volatile unsigned int utilization;
    volatile unsigned long long used, reasons;
} Device;

static Device devices[] = {
    {"GPU-00000000-0000-0000-0000-000000000000", "Double A100", 0, 0, 1, 0, 40, 30ULL << 30, 0},
    {"GPU-11111111-1111-1111-1111-111111111111", "Double A100", 0, 0, 0, 0, 90, 70ULL << 30, 0x4},
};
/* A MIG instance: memory, and nothing else. */
static Device instance = {"MIG-22222222-2222-2222-2222-222222222222", "Double MIG 1g.10gb", 0, 0, 0, 2, 0, 5ULL << 30, 0};

static volatile int opened, refuses, stuck, calls;
static volatile int count = sizeof devices / sizeof *devices;

/* -- the test's ------------------------------------------------------------------------------------------------- */

void double_refuse(int error) { refuses = error; }
/* Once lost, it is lost to everyone who has the library open, also after it is back. */
void double_lose(int index, int lost) {
    devices[index].lost = lost;
    devices[index].forgotten |= lost;
}
void double_stick(int on) { stuck = on; }
void double_count(int gpus) { count = gpus; }
void double_set(int index, unsigned int utilization, unsigned long long reasons) {
    devices[index].utilization = utilization;
    devices[index].reasons = reasons;
}
void double_mig(int index, int on) { devices[index].mig = on; }
int double_opened(void) { return opened; }
int double_calls(void) { return calls; }

/* -- NVML's ----------------------------------------------------------------------------------------------------- */

static int check(Device *device) {
    calls++;
    while (stuck) usleep(1000);
    if (!opened) return UNINITIALIZED;
    return device->lost || device->forgotten ? GPU_IS_LOST : SUCCESS;
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    if (refuses) return refuses;
    opened++;
    for (int i = 0; i < count; i++) devices[i].forgotten = devices[i].lost;
    return SUCCESS;
}

int nvmlShutdown(void) {
    if (!opened) return UNINITIALIZED;
    opened--;
    return SUCCESS;
}

const char *nvmlErrorString(int error) { return error == GPU_IS_LOST ? "GPU is lost" : "an error"; }

int nvmlDeviceGetCount_v2(unsigned int *found) {
    if (!opened) return UNINITIALIZED;
    *found = count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Device **found) {
    if (!opened) return UNINITIALIZED;
    if (index >= (unsigned int)count) return INVALID_ARGUMENT;
    *found = &devices[index];
    return check(&devices[index]);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device **found) {
    if (!opened) return UNINITIALIZED;
    *found = strcmp(uuid, instance.uuid) ? NULL : &instance;
    for (int i = 0; i < count; i++)
        if (!strcmp(uuid, devices[i].uuid)) *found = &devices[i];
    return *found ? SUCCESS : NOT_FOUND;
}

int nvmlDeviceGetUUID(Device *device, char *uuid, unsigned int length) {
    strncpy(uuid, device->uuid, length);
    return check(device);
}

int nvmlDeviceGetName(Device *device, char *name, unsigned int length) {
    strncpy(name, device->name, length);
    return check(device);
}

int nvmlDeviceGetUtilizationRates(Device *device, Utilization *rates) {
    rates->gpu = device->utilization;
    rates->memory = 0;
    /* A GPU that is split, and its instances, have no rates. */
    return device->mig ? NOT_SUPPORTED : check(device);
}

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    memory->total = 80ULL << 30;
    memory->used = device->used;
    memory->free = memory->total - memory->used;
    return check(device);
}

int nvmlDeviceGetPowerUsage(Device *device, unsigned int *milliwatts) {
    *milliwatts = 250500;
    return device == &instance ? NOT_SUPPORTED : check(device);
}

int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned int *celsius) {
    *celsius = 61;
    if (sensor != 0 || device == &instance) return INVALID_ARGUMENT;
    return check(device);
}

int nvmlDeviceGetTotalEccErrors(Device *device, int type, int counter, unsigned long long *errors) {
    *errors = type == 1 && counter == 0 ? 3 : 99;
    return device->ecc ? check(device) : NOT_SUPPORTED;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *reasons) {
    *reasons = device->reasons;
    return device == &instance ? NOT_SUPPORTED : check(device);
}

int nvmlDeviceGetMigMode(Device *device, unsigned int *current, unsigned int *pending) {
    *current = *pending = device->mig != 0;
    return device == &instance ? NOT_SUPPORTED : check(device);
}
#endif

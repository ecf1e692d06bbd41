/* A driver of one H200 that keeps MPS limits as the real one does: for clients of a daemon only. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define GIB (1024UL * 1024 * 1024)
#define CONTEXT (512UL * 1024 * 1024)

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static int is_client(void) {
    struct stat found;
    const char *pipe = setting("CUDA_MPS_PIPE_DIRECTORY");
    return pipe && stat(pipe, &found) == 0;
}

static size_t total(void) { return 140 * GIB; }

static size_t limit(void) {
    const char *text = setting("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT");
    const char *ignored = setting("FAKE_NO_LIMIT");
    if (!is_client() || !text || ignored) return total();
    return strtoul(text + 2, NULL, 10) * 1024 * 1024; /* 0=<n>M */
}

int cuInit(unsigned flags) {
    const char *path = setting("FAKE_BUSY_ONCE"), *code = setting("FAKE_INIT");
    struct stat found;
    if (path && stat(path, &found) == 0) {
        remove(path);
        return 807;
    }
    return code ? atoi(code) : (int)flags;
}
int cuGetErrorName(int code, const char **name) {
    *name = code == 807 ? "CUDA_ERROR_MPS_SERVER_NOT_READY" : "CUDA_ERROR_OTHER";
    return 0;
}
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    snprintf(name, size, "NVIDIA H200");
    return device;
}
int cuDeviceGetUuid_v2(char *uuid, int device) {
    for (int i = 0; i < 16; i++) uuid[i] = (char)(i * 17);
    return device;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    const char *text = setting("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE");
    double share = is_client() && text ? atof(text) / 100 : 1;
    *value = attribute == 16 ? (int)(132 * share) / 2 * 2 : -1;
    return device;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &limit; return device; }
int cuCtxSetCurrent(void *context) { return context ? 0 : 201; }
int cuMemGetInfo_v2(size_t *available, size_t *all) {
    *all = total();
    *available = limit() - CONTEXT;
    return 0;
}
int cuMemAlloc_v2(unsigned long long *memory, size_t size) {
    *memory = 1;
    return size > limit() - CONTEXT ? 2 : 0;
}
int cuMemFree_v2(unsigned long long memory) { return memory == 1 ? 0 : 1; }

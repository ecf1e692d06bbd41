/* A libcuda for rehearsals: types as in cuda.h, and a helper process that knows the simulated GPU.
 * It takes only what the real one would take: a wrong argument is CUDA_ERROR_INVALID_VALUE. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct {
    char bytes[16];
} CUuuid;
typedef void *CUcontext, *CUmodule, *CUfunction, *CUstream;
enum { OK = 0, INVALID = 1, NOT_INITIALIZED = 3, NO_CONTEXT = 201, MPS_GONE = 806 };

static FILE *to_helper, *from_helper;
static unsigned long long sm_count, total_bytes, cap_bytes, used_bytes;
static char uuid[33];
static CUcontext current;
static double busy_until_s;

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static int ask(const char *command, unsigned long long value) {
    int code = MPS_GONE;
    if (!to_helper) return NOT_INITIALIZED;
    fprintf(to_helper, "%s %llu\n", command, value);
    if (fflush(to_helper) || fscanf(from_helper, "%d", &code) != 1) return MPS_GONE;
    return code;
}

int cuInit(unsigned flags) {
    int down[2], up[2], code;
    if (flags) return INVALID;
    if (to_helper) return OK;
    if (pipe(down) || pipe(up)) return 999;
    if (fork() == 0) {
        dup2(down[0], 0);
        dup2(up[1], 1);
        for (int each = 3; each < 256; each++) close(each);
        execl(PYTHON, PYTHON, "-S", "-P", HELPER, GPU, (char *)NULL);
        _exit(1);
    }
    close(down[0]);
    close(up[1]);
    to_helper = fdopen(down[1], "w");
    from_helper = fdopen(up[0], "r");
    if (fscanf(from_helper, "%d", &code) != 1) code = 999;
    if (code == OK && fscanf(from_helper, "%llu %llu %llu %32s", &sm_count, &total_bytes,
                             &cap_bytes, uuid) != 4)
        code = 999;
    return code;
}

int cuGetErrorName(int code, const char **name) {
    *name = code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_OTHER";
    return OK;
}

int cuDeviceGetCount(int *count) {
    *count = 1;
    return to_helper ? OK : NOT_INITIALIZED;
}

int cuDeviceGet(CUdevice *device, int ordinal) {
    *device = 77; /* a handle, not the ordinal */
    return ordinal ? 101 : OK;
}

int cuDeviceGetName(char *name, int size, CUdevice device) {
    if (size < 16 || device != 77) return INVALID;
    strcpy(name, "NVIDIA H200");
    return OK;
}

int cuDeviceGetUuid_v2(CUuuid *found, CUdevice device) {
    for (int i = 0; i < 16; i++) {
        unsigned byte;
        sscanf(uuid + 2 * i, "%2x", &byte);
        found->bytes[i] = (char)byte;
    }
    return device == 77 ? OK : INVALID;
}

int cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    *value = (int)sm_count;
    return attribute == 16 && device == 77 ? OK : INVALID;
}

int cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    *context = &current;
    return device == 77 ? ask("context", 0) : INVALID;
}

int cuCtxSetCurrent(CUcontext context) {
    current = context;
    return context == &current ? OK : INVALID;
}

int cuMemGetInfo_v2(size_t *available, size_t *total) {
    *available = cap_bytes - used_bytes;
    *total = total_bytes;
    return current ? OK : NO_CONTEXT;
}

int cuMemAlloc_v2(CUdeviceptr *memory, size_t size) {
    if (!current) return NO_CONTEXT;
    if (used_bytes + size > cap_bytes) return 2;
    used_bytes += size;
    *memory = 0x7f0000000000ULL + size; /* does not fit an int */
    return ask("used", used_bytes);
}

int cuMemFree_v2(CUdeviceptr memory) {
    if (memory < 0x7f0000000000ULL) return INVALID;
    used_bytes -= memory - 0x7f0000000000ULL;
    return ask("used", used_bytes);
}

int cuModuleLoadData(CUmodule *module, const void *image) {
    *module = strdup(image);
    return strncmp(image, ".version ", 9) || !current ? 218 : OK;
}

int cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    char entry[64];
    snprintf(entry, sizeof entry, ".entry %s(", name);
    *function = strdup(name);
    return strstr(module, entry) ? OK : 500;
}

int cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                   CUstream stream, void **parameters, void **extra) {
    if (grid_x != 1 || grid_y != 1 || grid_z != 1 || block_x != 1 || block_y != 1 || block_z != 1)
        return INVALID;
    if (shared_bytes || stream || extra) return INVALID;
    if (strcmp(function, "spin") == 0) {
        unsigned long long duration_ns;
        memcpy(&duration_ns, parameters[0], sizeof duration_ns);
        busy_until_s = now_s() + duration_ns / 1e9;
        return OK;
    }
    return ask(function, 0);
}

int cuCtxSynchronize(void) {
    int code;
    while ((code = ask("sync", 0)) == OK && now_s() < busy_until_s) usleep(20000);
    return code;
}

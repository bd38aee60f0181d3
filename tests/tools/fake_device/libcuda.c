// A libcuda whose GPU is the process's memory and whose streams run at once, for the real package cuda-bindings. It prints
// the calls whose arguments the package might convert wrongly.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAY(...) (printf(__VA_ARGS__), fflush(stdout))

typedef uint64_t Address;
typedef void* Handle;

static Handle new_handle(void) {
    static intptr_t last = 0x1000;
    return (Handle)(last += 16);
}

int cuInit(unsigned flags) { return flags; }
int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal + 7, 0; }
int cuDeviceGetName(char* name, int length, int device) { return device != 7 || !strncpy(name, "stub", length); }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 99;
    return device != 7;
}
int cuGetErrorString(int error, const char** text) {
    return *text = error == 2 ? "out of memory" : "invalid argument", 0;
}

int cuDevicePrimaryCtxRetain(Handle* context, int device) { return *context = new_handle(), device != 7; }
int cuDevicePrimaryCtxRelease_v2(int device) { return SAY("context released\n"), device != 7; }
int cuCtxPushCurrent_v2(Handle context) { return context == 0; }
int cuCtxPopCurrent_v2(Handle* context) { return *context = 0, 0; }

int cuStreamCreate(Handle* stream, unsigned flags) { return *stream = new_handle(), flags != 1; }
int cuStreamDestroy_v2(Handle stream) { return SAY("stream destroyed\n"), stream == 0; }
int cuStreamSynchronize(Handle stream) { return stream == 0; }
int cuStreamWaitEvent(Handle stream, Handle event, unsigned flags) { return stream == 0 || event == 0 || flags; }
int cuEventCreate(Handle* event, unsigned flags) { return *event = new_handle(), flags != 2; }
int cuEventRecord(Handle event, Handle stream) {
    if (stream == (Handle)1) SAY("legacy stream recorded\n");
    return event == 0 || stream == 0;
}
int cuEventDestroy_v2(Handle event) { return SAY("event destroyed\n"), event == 0; }

int cuMemAlloc_v2(Address* address, size_t bytes) {
    if (bytes > 1000000) return 2;
    return *address = (Address)aligned_alloc(256, (bytes + 255) / 256 * 256), 0;
}
int cuMemFree_v2(Address address) { return SAY("memory freed\n"), free((void*)address), 0; }
int cuMemGetInfo_v2(size_t* left, size_t* total) { return *left = 5000000, *total = 9000000, 0; }
int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, Handle stream) {
    return memcpy((void*)to, from, bytes), stream == 0;
}
int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, Handle stream) {
    return memcpy(to, (void*)from, bytes), stream == 0;
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Handle stream) {
    return memcpy((void*)to, (void*)from, bytes), stream == 0;
}
int cuMemsetD8Async(Address to, unsigned char value, size_t bytes, Handle stream) {
    return memset((void*)to, value, bytes), stream == 0;
}
int cuMemHostRegister_v2(void* memory, size_t bytes, unsigned flags) {
    return (Address)memory % 4096 != 0 || bytes % 4096 != 0 || flags;
}
int cuMemHostUnregister(void* memory) { return SAY("pages unlocked\n"), memory == 0; }
int cuPointerGetAttribute(int* value, int attribute, Address address) {
    return *value = 0, attribute != 9 || address < 4096;
}

int cuStreamBeginCapture_v2(Handle stream, int mode) { return stream == 0 || mode != 1; }
int cuStreamEndCapture(Handle stream, Handle* graph) { return *graph = new_handle(), stream == 0; }
int cuGraphInstantiateWithFlags(Handle* executable, Handle graph, unsigned long long flags) {
    return *executable = new_handle(), graph == 0 || flags;
}
int cuGraphLaunch(Handle executable, Handle stream) { return SAY("graph launched\n"), executable == 0 || stream == 0; }
int cuGraphDestroy(Handle graph) { return SAY("graph destroyed\n"), graph == 0; }
int cuGraphExecDestroy(Handle executable) { return SAY("executable destroyed\n"), executable == 0; }

// Names as in cuda.h's documentation -> the newest version of the function.
int cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t flags, int* status) {
    static const char* const ENDINGS[] = {"_v2", "WithFlags", ""};
    char exported[256];
    Dl_info own;
    (void)version, (void)flags;
    *function = 0;
    if (dladdr((void*)cuInit, &own) == 0) return 1;
    void* const library = dlopen(own.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    for (int i = 0; i < 3 && *function == 0; ++i) {
        snprintf(exported, sizeof exported, "%s%s", name, ENDINGS[i]);
        *function = dlsym(library, exported);
    }
    if (status) *status = *function == 0;
    return 0;
}

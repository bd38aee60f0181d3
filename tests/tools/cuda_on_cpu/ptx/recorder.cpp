// Stands in for libcudart under the host code that nvcc compiled: a launch is handed to whoever registered, with
// the name of the kernel in the PTX. No GPU, no driver. Only what the project's host code calls is here, so that
// a new call shows as a link error.
#include <cstddef>
#include <map>
#include <string>

// Kernels by the address of the host's stub. Registered while libraries are still being initialised.
static std::map<const void*, std::string>& kernels() {
    static std::map<const void*, std::string> all;
    return all;
}

struct Dim3 {
    unsigned x, y, z;
};
using Launched = int (*)(const char* kernel, const Dim3* grid, const Dim3* block, void** arguments, std::size_t shared);

static Launched launched = nullptr;

extern "C" {

void record_launches(Launched callback) { launched = callback; }

void** __cudaRegisterFatBinary(void*) {
    static void* handle;
    return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterFunction(void**, const char* stub, char*, const char* name, int, void*, void*, void*, void*, int*) {
    kernels()[stub] = name;
}

unsigned __cudaPushCallConfiguration(Dim3, Dim3, std::size_t, void*) { return 1; }  // <<<>>> is not used
int __cudaPopCallConfiguration(Dim3*, Dim3*, std::size_t*, void*) { return 1; }
int __cudaGetKernel(void** kernel, const void* stub) {
    *kernel = const_cast<void*>(stub);
    return 0;
}
int __cudaLaunchKernel(void* kernel, Dim3 grid, Dim3 block, void** arguments, std::size_t shared, void*) {
    return launched(kernels().at(kernel).c_str(), &grid, &block, arguments, shared);
}
int cudaLaunchKernel(const void* stub, Dim3 grid, Dim3 block, void** arguments, std::size_t shared, void*) {
    return launched(kernels().at(stub).c_str(), &grid, &block, arguments, shared);
}

int cudaGetDevice(int* device) {
    *device = 0;
    return 0;
}
int cudaDeviceGetAttribute(int* value, int, int) {  // the number of multiprocessors
    *value = 1;
    return 0;
}
int cudaFuncSetAttribute(const void*, int, int) { return 0; }

}  // extern "C"

// A driver of NVIDIA's and an NVRTC without a GPU, for tests/test_cuda.py: the functions that engines/cuda_device.py
// calls, by the signatures of NVIDIA's headers (with -DHEADERS beside those themselves). What NVRTC "compiles" is built
// by a C++ compiler, and a launch runs it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef HEADERS
#include <cuda.h>
#include <nvrtc.h>
#else
typedef int CUresult, CUdevice, CUdevice_attribute, CUfunction_attribute, nvrtcResult;
typedef void *CUmodule, *CUfunction, *CUstream, *nvrtcProgram;
#endif

// FAKE_CUDA names a call that fails; FAKE_FOLDER is where programs are built.
static int failing(const char* call) {
    const char* name = getenv("FAKE_CUDA");
    return name && strcmp(name, call) == 0 ? 999 : 0;
}

CUresult cuInit(unsigned flags) { return flags ? 1 : failing("cuInit"); }
CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    *device = 40 + ordinal;
    return failing("cuDeviceGet");
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
    if (device != 40) return 101;
    switch ((int)attribute) {
        case 16: *value = 3; return 0;
        case 75: *value = getenv("FAKE_OLD") ? 7 : 9; return 0;
        case 76: *value = 0; return 0;
        case 97: *value = 232448; return 0;
    }
    return 1;
}
CUresult cuGetErrorString(CUresult error, const char** text) {
    *text = error == 999 ? "unknown error" : NULL;
    return error == 999 ? 0 : 1;
}
CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    char path[4096];
    if (sscanf(image, "FAKE %4095s", path) != 1) return 200;
    *module = dlopen(path, RTLD_NOW);
    return *module ? failing("cuModuleLoadData") : 200;
}
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    *(void**)function = dlsym(module, name);
    return *function ? 0 : 500;
}
static int shared = 0;
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    if (!function) return 1;
    if ((int)attribute == 8) shared = value;
    return (int)attribute == 8 || ((int)attribute == 9 && value == 100) ? 0 : 1;
}
CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction function) {
    if (!function || ((int)attribute != 3 && (int)attribute != 4)) return 1;
    *value = (int)attribute == 3 ? 8 : 96;
    return 0;
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int threads, size_t bytes) {
    if (!function || threads % 32 || (int)bytes != shared) return 1;
    *blocks = 3;
    return failing("cuOccupancyMaxActiveBlocksPerMultiprocessor");
}
struct Update {
    void* fields[17];
    long long length;
};
CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty,
                        unsigned tz, unsigned bytes, CUstream stream, void** parameters, void** extra) {
    if (z != 1 || ty != 1 || tz != 1 || threads % 32 || (int)bytes != shared || stream != (CUstream)0x123 || extra)
        return 1;
    if (shared)
        ((void (*)(const void*, int, int, int))(void*)function)(*(const void**)parameters[0], (int)x, (int)y, 0);
    else  // update.cuh's, whose argument is its struct
        ((void (*)(struct Update, int, int, int))(void*)function)(*(struct Update*)parameters[0], (int)x, (int)y, 0);
    return failing("cuLaunchKernel");
}

struct Program {
    char *source, path[512], options[256];
};
nvrtcResult nvrtcVersion(int* major, int* minor) {
    *major = 13, *minor = 7;
    return 0;
}
const char* nvrtcGetErrorString(nvrtcResult error) { return error == 6 ? "NVRTC_ERROR_COMPILATION" : "another"; }
nvrtcResult nvrtcCreateProgram(nvrtcProgram* made, const char* source, const char* name, int count,
                               const char* const* headers, const char* const* names) {
    if (!name || count || headers || names) return 3;
    struct Program* program = calloc(1, sizeof *program);
    program->source = strdup(source);
    *(void**)made = program;
    return 0;
}
nvrtcResult nvrtcCompileProgram(nvrtcProgram made, int count, const char* const* options) {
    struct Program* program = (struct Program*)made;
    for (int i = 0; i < count; ++i) strcat(strcat(program->options, options[i]), " ");
    if (failing("nvrtcCompileProgram") || !strstr(program->options, "--gpu-architecture=sm_90 ")) return 6;
    char command[1024];
    snprintf(program->path, sizeof program->path, "%s/kernel_XXXXXX", getenv("FAKE_FOLDER"));
    close(mkstemp(program->path));
    snprintf(command, sizeof command, "c++ -std=c++17 -O1 -fPIC -shared -w -x c++ - -o %s", program->path);
    FILE* compiler = popen(command, "w");
    fputs(program->source, compiler);
    return pclose(compiler) ? 6 : 0;
}
nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t* size) {
    *size = program ? sizeof "line 1\nkernel.cu(7): error: no luck\n" : 0;
    return 0;
}
nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char* text) {
    strcpy(text, "line 1\nkernel.cu(7): error: no luck\n");
    return program ? 0 : 4;
}
nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t* size) {
    *size = program ? 512 : 0;
    return 0;
}
nvrtcResult nvrtcGetCUBIN(nvrtcProgram made, char* code) {
    snprintf(code, 512, "FAKE %s", ((struct Program*)made)->path);
    return 0;
}
nvrtcResult nvrtcDestroyProgram(nvrtcProgram* made) {
    free(((struct Program*)*made)->source);
    free(*made);
    *made = NULL;
    return 0;
}

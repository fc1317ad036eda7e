/* A libcuda.so.1 for machines without a driver, just enough for cuDNN to build (never run) the
 * engines that it compiles at run time. Each function takes what it is given and looks at its first
 * argument at most. */
typedef int result; /* CUresult */

static int object;

#define WORKS(name)                                                                                \
    result name(void);                                                                             \
    result name(void)                                                                              \
    {                                                                                              \
        return 0;                                                                                  \
    }
/* gives an object through its first argument */
#define GIVES(name)                                                                                \
    result name(void **out);                                                                       \
    result name(void **out)                                                                        \
    {                                                                                              \
        *out = &object;                                                                            \
        return 0;                                                                                  \
    }
/* gives a number */
#define NUMBER(name, value)                                                                        \
    result name(int *out);                                                                         \
    result name(int *out)                                                                          \
    {                                                                                              \
        *out = (value);                                                                            \
        return 0;                                                                                  \
    }
#define TEXT(name)                                                                                 \
    result name(result e, const char **out);                                                       \
    result name(result e, const char **out)                                                        \
    {                                                                                              \
        (void)e;                                                                                   \
        *out = "mock driver";                                                                      \
        return 0;                                                                                  \
    }
/* there, but refused: CUDA_ERROR_STUB_LIBRARY */
#define REFUSED(name)                                                                              \
    result name(void);                                                                             \
    result name(void)                                                                              \
    {                                                                                              \
        return 34;                                                                                 \
    }

WORKS(cuInit)
NUMBER(cuDriverGetVersion, 13000)
TEXT(cuGetErrorName)
TEXT(cuGetErrorString)
GIVES(cuLibraryLoadData)
WORKS(cuLibraryUnload)
GIVES(cuLibraryGetKernel)
GIVES(cuKernelGetFunction)
GIVES(cuModuleLoadData)
GIVES(cuModuleGetFunction)
NUMBER(cuKernelGetAttribute, 0)
NUMBER(cuFuncGetAttribute, 0)
WORKS(cuKernelSetAttribute)
WORKS(cuFuncSetAttribute)
REFUSED(cuDeviceGetCount)
REFUSED(cuDeviceGet)
REFUSED(cuDeviceGetAttribute)
REFUSED(cuCtxGetCurrent)
REFUSED(cuCtxPushCurrent)
REFUSED(cuCtxPushCurrent_v2)
REFUSED(cuCtxPopCurrent)
REFUSED(cuCtxPopCurrent_v2)
REFUSED(cuCtxGetLimit)
REFUSED(cuCtxSetCurrent)
REFUSED(cuStreamGetCtx)
REFUSED(cuLinkCreate)
REFUSED(cuLinkCreate_v2)
REFUSED(cuLinkAddData)
REFUSED(cuLinkAddData_v2)
REFUSED(cuLinkComplete)
REFUSED(cuLinkDestroy)
REFUSED(cuLaunchKernel)
REFUSED(cuLaunchKernelEx)
REFUSED(cuLaunchCooperativeKernel)
REFUSED(cuLibraryLoadFromFile)
REFUSED(cuModuleUnload)
REFUSED(cuOccupancyMaxPotentialClusterSize)
REFUSED(cuOccupancyMaxActiveClusters)
REFUSED(cuGetProcAddress)
REFUSED(cuGetProcAddress_v2)
REFUSED(cuGetExportTable)

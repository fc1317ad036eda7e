/* What is common to all device backends. */
#include "kernels/device.h"

void trm_device_destroy(trm_device *device)
{
    if (device != NULL)
        device->ops->destroy(device);
}

/* What the engine's files share, in the order in which one needs the other. */
#ifndef RNIC_INTERNAL_H
#define RNIC_INTERNAL_H

#include "fabric.h"
#include "device.h"
#include "objects.h"
#include "qp.h"
#include "wire.h"
#include "flow.h"
#endif

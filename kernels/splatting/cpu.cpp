#include "splatting/splatting.h"
#include "studio/entry.h"

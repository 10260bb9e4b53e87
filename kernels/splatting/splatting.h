#pragma once
#include "abi.h"

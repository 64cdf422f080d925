#pragma once

// XXH3_64bits(), where libxxhash has that with the widest vectors of this processor: the same
// checksums in less than half the time.
#ifdef TRIREME_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

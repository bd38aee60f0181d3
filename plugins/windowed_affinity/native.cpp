// Placeholder until the kernel lands: keeps the build green.
#include <nanobind/nanobind.h>

NB_MODULE(_native, m) { m.doc() = "Native CPU kernel of windowed memory affinity."; }

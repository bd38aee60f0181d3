// The Python module `_native`. It checks nothing: cpu_op.py checks shapes and types before it calls.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "problem.hpp"

namespace nb = nanobind;
using namespace maskring;

namespace {

using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<nb::c_contig, nb::device::cpu>;
using Integers = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;

std::vector<std::string> instruction_sets() {
    const KernelList list = available_kernels();
    std::vector<std::string> names;
    for (int i = 0; i < list.count; ++i) names.emplace_back(list.kernels[i]->name);
    return names;
}

const Kernel& kernel_named(const std::string& name) {
    const KernelList list = available_kernels();
    for (int i = 0; i < list.count; ++i)
        if (name == list.kernels[i]->name) return *list.kernels[i];
    throw std::invalid_argument("no kernel for instruction set " + name + "; use one of instruction_sets()");
}

void windowed_affinity(const Array& query, const Array& keys, const Array& values, const Integers& dilation,
                       const std::optional<Integers>& offsets, const Output& out, int radius, float scale, int top_k,
                       bool shares, int threads, const std::string& instruction_set) {
    const auto extent = [](const Array& array, size_t axis) { return static_cast<int>(array.shape(axis)); };
    Problem p{};
    p.batch = extent(keys, 0), p.slots = extent(keys, 1), p.channels = extent(keys, 2);
    p.height = extent(keys, 3), p.width = extent(keys, 4), p.labels = extent(values, 2);
    p.radius = radius, p.top_k = top_k, p.scale = scale, p.shares = shares;
    p.storage = query.itemsize() == 4 ? Storage::f32 : Storage::f16;
    p.query = query.data(), p.keys = keys.data(), p.values = values.data(), p.dilation = dilation.data();
    p.offsets = offsets ? offsets->data() : nullptr;
    p.out = out.data();
    const Kernel& kernel = kernel_named(instruction_set);
    nb::gil_scoped_release unlocked;
    compute(p, kernel, {threads});
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "CPU kernels of windowed memory affinity. Call them through cpu_op.py, which checks the arguments.";
    m.def("instruction_sets", &instruction_sets, "Instruction sets that this processor can run, best first.");
    m.def("windowed_affinity", &windowed_affinity, nb::arg("query"), nb::arg("keys"), nb::arg("values"),
          nb::arg("dilation"), nb::arg("offsets").none(), nb::arg("out"), nb::arg("radius"), nb::arg("scale"),
          nb::arg("top_k"), nb::arg("shares"), nb::arg("threads"), nb::arg("instruction_set"));
}

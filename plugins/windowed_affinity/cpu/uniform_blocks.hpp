// Finds queries that need no keys: see uniform_blocks.cpp.
#pragma once

#include <vector>

#include "problem.hpp"

namespace maskring {

struct UniformBlockMap {
    std::vector<int> first_slot;
    std::vector<uint8_t> uniform;

    UniformBlocks view() const { return {first_slot.data(), uniform.data()}; }
};

UniformBlockMap find_uniform_blocks(const Problem& p, const Workers& workers);

}  // namespace maskring

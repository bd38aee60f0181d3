// Queries that need no keys: see uniform_blocks.cpp.
#pragma once

#include <vector>

#include "problem.hpp"

namespace maskring {

struct SettledQueries {
  std::vector<int> slot;
  std::vector<uint8_t> blocks;

  Settled view() const { return {slot.data(), blocks.data()}; }
};

SettledQueries settled_queries(const Problem& p, int threads);

}  // namespace maskring

// The threads that work on a list of independent things.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace maskring {

// Run `work(index, thread)` for all indices on `threads` threads, this one included; work must not throw.
template <typename Work>
void parallel(int count, int threads, const Work& work) {
  std::atomic<int> next{0};
  const auto loop = [&](int thread) {
    for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) work(i, thread);
  };
  const int wanted = std::min(threads, count);
  std::vector<std::thread> helpers;
  helpers.reserve(std::max(wanted, 0));  // an exception beside threads that are not joined would end the process
  try {
    for (int t = 1; t < wanted; ++t) helpers.emplace_back(loop, t);
  } catch (const std::exception&) {
    // The system gives no more threads, or no memory for one: those there are share the work.
  }
  loop(0);
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace maskring
